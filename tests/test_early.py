"""What can be told without torch is told before it is imported."""

import re
import subprocess
import sys

import pytest
import yaml

from lit_rl import algorithms, policy, sampling, tasks
from lit_rl.early import BASES, FITTING, GROUPS, checked
from lit_rl.errors import UsageError
from lit_rl.options import DEFAULT_CLASSES

PACKAGES = {"model": algorithms, "model.policy": policy, "data.task": tasks, "data.sampler": sampling}


@pytest.mark.parametrize(
    "args, said",
    [
        (["train"], "no subcommand 'train'; choose one of fit, validate, test, verify, fit-reward, export"),
        (["fit", "--model", "GRPP"], r"model: no class 'GRPP' \(did you mean GRPO\?\)"),
        (["fit", "--model", "Algorithm"], "model: Algorithm is what the others are made of; choose one of ABC"),
        (["fit", "--data.task=GSM8"], "data.task: no class 'GSM8'"),
        (["test", "--ckpt_path", "nowhere.ckpt"], "ckpt_path: no file nowhere.ckpt"),
        (["validate", "--config=nowhere.yaml"], "--config: no file nowhere.yaml"),
        (["fit", "--modle.samples", "3"], r"unrecognized arguments: --modle.samples \(did you mean --model\?\)"),
        (["--config", "all.yaml", "fit"], "--config stands behind the subcommand"),
    ],
)
def test_a_mistake_that_needs_no_parser(args, said):
    with pytest.raises(UsageError, match=said):
        checked(args)


def test_all_classes_pass_and_arguments_stay_the_same():
    for key, package in PACKAGES.items():
        for name in (each for each in package.__all__ if each[0].isupper() and each not in BASES):
            assert f"--{key}={name}" in checked(["fit", f"--{key}={name}"])
            assert name in checked(["fit", f"--{key}", name])
    assert checked(["fit"]) == ["fit", *(f"--{key}={name}" for key, name in DEFAULT_CLASSES.items())]
    for args in (
        [],
        ["--help"],
        ["verify", "--model", "anything"],
        ["fit", "--model", "mine.Anything", *checked(["fit"])[2:]],
    ):
        assert sorted(checked(args)) == sorted(args)


@pytest.mark.parametrize("command", FITTING)
def test_groups_of_options_are_those_of_the_parser(lit_rl, command):
    _, out, _ = lit_rl(command, "--print_config")
    assert set(yaml.safe_load(out)) <= GROUPS
    _, out, _ = lit_rl(command, "--help")
    assert set(re.findall(r"^  (?:-., )?--([a-z_]+)", out, re.MULTILINE)) <= GROUPS


def test_nothing_heavy_is_imported_for_a_mistake():
    code = "import sys; sys.argv[1:] = ['fit', '--model', 'GRPP']; from lit_rl.__main__ import main; code = main(); "
    heavy = "{'torch', 'lightning', 'transformers', 'datasets', 'mlflow', 'jsonargparse'}"
    run = subprocess.run([sys.executable, "-c", f"{code}sys.exit(code + 10 * len({heavy} & set(sys.modules)))"])
    assert run.returncode == 2
