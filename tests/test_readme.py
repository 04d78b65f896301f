"""The README is short and names what the code exports; what stands beside it says what the code does."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from lit_rl import algorithms, tasks

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
GPUS = (ROOT / "docs/gpus.md").read_text()


def test_it_is_read_in_two_minutes():
    assert len(TEXT.splitlines()) <= 120


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
)
def test_paths_that_are_named_are_there(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"(?<![\w/.])(?:lit_rl|ablations|tests|data|docs)/[\w/.]*\w", text)
    assert all((ROOT / path).exists() for path in named), [path for path in named if not (ROOT / path).exists()]


def test_every_algorithm_is_in_the_table():
    named = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert named == set(algorithms.__all__) - {"Algorithm"}
    assert all(
        name in algorithms.__all__ or name in tasks.__all__
        for name in re.findall(r"--(?:model|data.task) ([A-Z]\w+)", TEXT)
    )


def test_what_the_table_calls_unbiased_the_certificate_does():
    rows = json.loads((ROOT / "results/certificate/certificate.json").read_text())
    table = dict(re.findall(r"^\| `(\w+)` \|[^|]+\| (yes|no)", TEXT, re.MULTILINE))
    assert table.pop("Supervised") == "no" and set(table) == set(algorithms.__all__) - {"Algorithm", "Supervised"}
    for name, unbiased in table.items():
        found = [row for row in rows if re.match(rf"{name}\b", row["estimator"])]
        assert (found[0]["expected"] == "unbiased") == (unbiased == "yes"), name  # the default comes first


def test_commands_for_gpus_parse_and_take_steps_of_as_many_responses(lit_rl):
    """Nothing is loaded."""
    shared = re.search(r'RUN="(.+?)"', GPUS, re.DOTALL)[1].split()
    commands = re.findall(r"python -m lit_rl fit \$RUN (.+)", GPUS)
    assert len(commands) == 4
    for command in commands:
        code, out, err = lit_rl("fit", *shared, *command.split(), "--print_config")
        assert code == 0, err
        config = yaml.safe_load(out)
        data, trainer, devices = config["data"], config["trainer"], config["trainer"]["devices"]
        step = data["rows_per_microbatch"] * trainer["accumulate_grad_batches"]
        responses = data["prompts_per_iteration"] * config["model"]["init_args"]["samples"]
        processes = 1 if devices == "auto" else int(devices)
        assert step * processes == 256 and responses // processes % step == 0


def test_pre_commit_runs_what_make_lint_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert [hook["entry"] for hook in hooks] == [f"python {command}" for command in re.findall(r"@\$\(PY\) (.+)", lint)]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (str(citation["version"]), citation["license"]) == (project["version"], project["license"])
    assert "2506.02553" in citation["references"][0]["url"]
