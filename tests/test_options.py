"""The order of options and the place of settings change nothing."""

import itertools
import json

import pytest
import yaml

from lit_rl import algorithms
from lit_rl.algorithms import Algorithm
from lit_rl.commands.options import DEFAULT_CLASSES, in_order
from lit_rl.commands.parser import Parser
from lit_rl.errors import UsageError
from lit_rl.sampling import Sampler
from lit_rl.tasks import Task

NAMES = [name for name in algorithms.__all__ if name != "Algorithm"]
SETTINGS = {"learning_rate": 3e-5, "temperature": 0.5, "warmup_steps": 3}
REQUIRED = {"ABC": {"reward_model": "models/r"}, "RTO": {"dpo_checkpoint": "models/d"}}


@pytest.fixture(scope="module")
def parse():
    """The configuration that the arguments of ``fit`` give, as a dictionary."""
    parser = Parser(exit_on_error=True)
    parser.add_argument("--config", "-c", action="config")
    parser.add_subclass_arguments(Algorithm, "model")
    parser.add_argument("--data.task", type=Task | None)
    parser.add_argument("--data.sampler", type=Sampler | None)

    def run(*args):
        config = parser.parse_args(in_order(args, DEFAULT_CLASSES))
        read = json.loads(parser.dump(config, format="json_compact", skip_none=False))
        return {name: read[name] for name in ("model", "data")}

    return run


def ways(name, tmp_path):
    """Command lines that say the same: an algorithm, and settings for it."""
    settings = SETTINGS | REQUIRED.get(name, {})
    typed = [f"--model.{key}={value}" for key, value in settings.items()]
    task = [["--data.task", "GSM8K"], ["--data.task.held_out", "8"], ["--model.policy.path", "embedded-mid"]]
    for order in itertools.permutations([typed[:1], ["--model", name], typed[1:]]):
        yield [arg for option in [*order, *task] for arg in option]
        yield [arg for option in [*task[::-1], *order] for arg in option]
    policy = {"class_path": "lit_rl.policy.CausalPolicy", "init_args": {"path": "embedded-mid"}}
    data = {"task": {"class_path": "GSM8K", "init_args": {"held_out": 8}}}
    set_for = settings | {"policy": policy}
    files = {
        "all": {"model": {"class_path": f"lit_rl.algorithms.{name}", "init_args": set_for}, "data": data},
        "short": {"model": {"class_path": name, "init_args": set_for}, "data": data},
        "class": {"model": {"class_path": name}},
        "name": {"model": name},
        "settings": {"model": {"init_args": set_for}, "data": data},
        "flat": {"model": set_for, "data": data},
        "other": {"model": {"class_path": "TRePO", "init_args": {"learning_rate": 1.0, "clip_low": 0.5}}, "data": data},
    }
    for key, content in files.items():
        (tmp_path / f"{key}.yaml").write_text(yaml.safe_dump(content))
    files = {key: ["--config", str(tmp_path / f"{key}.yaml")] for key in files}
    rest = [arg for option in (*task, typed) for arg in option]
    yield files["all"]
    yield files["short"]
    yield [*files["class"], *rest]
    yield [*rest, *files["name"]]
    for first in ("class", "name"):
        for second in ("settings", "flat"):
            yield [*files[first], *files[second]]
            yield [*files[second], *files[first]]
    for key in ("settings", "flat", "all"):
        yield [*files[key], "--model", name]
        yield [f"--model={name}", *files[key]]
    if name != "TRePO":
        yield [*files["other"], "--model", name, *rest]
        yield [*rest, "--model", name, *files["other"]]
        yield [*files["other"], *files["all"]]
    yield ["--model", json.dumps({"class_path": name, "init_args": settings}), *rest]
    yield [*rest, "--model.class_path", name]
    yield [f"--model.init_args.{key}={value}" for key, value in settings.items()] + ["--model", name, *rest]


@pytest.mark.parametrize("name", NAMES)
def test_an_algorithm_is_the_same_whatever_the_order_and_the_place(name, parse, tmp_path):
    given = {tuple(in_order(way, DEFAULT_CLASSES)) for way in ways(name, tmp_path)}
    made = [parse(*args) for args in given]
    assert all(each == made[0] for each in made)
    required = [f"--model.{key}={value}" for key, value in REQUIRED.get(name, {}).items()]
    defaults = parse("--model", name, *required)["model"]["init_args"]
    assert made[0]["model"]["class_path"].endswith(f".{name}")
    chosen = made[0]["model"]["init_args"]
    assert {key: chosen[key] for key in SETTINGS} == SETTINGS
    assert chosen["policy"]["init_args"]["path"] == "embedded-mid"
    left = set(defaults) - {*SETTINGS, "policy"}
    assert {key: chosen[key] for key in left} == {key: defaults[key] for key in left}


def test_a_policy_and_a_task_keep_their_settings_whatever_the_order(parse):
    options = [
        ["--model.policy.layers=1"],
        ["--model.policy", "TokenTransformer"],
        ["--model.policy.heads", "2"],
        ["--model", "TRePO"],
        ["--model.cuts.every=2"],
        ["--model.cuts", "Stride"],
    ]
    made = [parse(*itertools.chain(*order)) for order in (options, options[::-1], options[3:] + options[:3])]
    assert made[0] == made[1] == made[2]
    assert made[0]["model"]["init_args"]["policy"]["init_args"]["layers"] == 1


def test_what_is_left_out_is_said_and_the_policy_stays(tmp_path, capsys, monkeypatch):
    policy = {"class_path": "CausalPolicy", "init_args": {"path": "embedded-mid"}}
    model = {"class_path": "lit_rl.algorithms.GRPO", "init_args": {"samples": 8, "clip_low": 0.1, "policy": policy}}
    (tmp_path / "grpo.yaml").write_text(yaml.safe_dump({"model": model, "data": {"eval_prompts": 4}}))
    args = in_order(["--config", "grpo.yaml", "--model", "RLOO"], {})
    assert capsys.readouterr().err.splitlines() == [
        "lit_rl: left out what grpo.yaml sets for GRPO: model.clip_low, model.samples; RLOO has its own defaults, set "
        "again what it shall share"
    ]
    kept = yaml.safe_load(args[0].removeprefix("--config="))
    assert kept == {"model": {"class_path": "RLOO", "init_args": {"policy": policy}}, "data": {"eval_prompts": 4}}
    assert in_order(args, {}) == args and not capsys.readouterr().err  # a second process says nothing again
    assert in_order(["--config", "grpo.yaml", "--model", "GRPO"], {}) == ["--config", "grpo.yaml", "--model", "GRPO"]


def test_nothing_given_takes_the_default_classes():
    assert in_order([], {}) == []
    assert in_order([], DEFAULT_CLASSES) == [f"--{key}={name}" for key, name in DEFAULT_CLASSES.items()]


def test_a_list_keeps_the_order_it_is_built_in():
    built = ["--trainer.callbacks+=A", "--trainer.callbacks.x=1", "--trainer.callbacks+=B", "--trainer.callbacks.x=2"]
    assert in_order(["--model.samples", "3", *built], {}) == ["--model.samples", "3", *built]
    assert in_order([*built, "--model.samples", "3"], {}) == ["--model.samples", "3", *built]


@pytest.mark.parametrize(
    "content, said",
    [(b"\xff\x00\x9c", "is no YAML"), (b"a: [", "is no YAML"), (b"- 1", "but a list"), (b"\x00\x01", "is no YAML")],
)
def test_a_file_that_holds_no_settings_is_a_line(content, said, tmp_path):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=f"^--config: c.yaml .*{said}"):
        in_order(["--config=c.yaml"], {})
    with pytest.raises(UsageError, match="--config: no file nowhere.yaml"):
        in_order(["-c", "nowhere.yaml"], {})
    with pytest.raises(UsageError, match="--config: . cannot be read"):
        in_order(["--config", "."], {})
