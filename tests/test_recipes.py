"""The recipes in configs/ are settings that the command line takes, and stand for what they are named after."""

from pathlib import Path

import pytest
import yaml

from lit_rl.policy import CausalPolicy

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_configuration_of_fit(recipe, lit_rl):
    code, out, err = lit_rl("fit", "--config", str(recipe), "--model.learning_rate", "1e-5", "--print_config")
    assert code == 0, err
    config, given = yaml.safe_load(out), yaml.safe_load(recipe.read_text())
    settings = config["model"]["init_args"]
    assert config["model"]["class_path"].endswith(f".{given['model']['class_path']}")
    assert settings["learning_rate"] == 1e-5
    for name, value in given["model"]["init_args"].items():
        assert name == "cuts" or settings[name] == value
    for group in given.keys() - {"model"}:
        assert config[group].items() >= given[group].items()


def test_every_recipe_is_in_the_table():
    table = (ROOT / "configs/README.md").read_text()
    assert RECIPES and all(f"| [{path.name}]({path.name}) |" in table for path in RECIPES)


def test_vineppo_cuts_behind_the_newline():
    recipe = yaml.safe_load((ROOT / "configs/vineppo.yaml").read_text())
    assert CausalPolicy().encode_text("\n") == recipe["model"]["init_args"]["cuts"]["init_args"]["token_ids"]
