"""What can be told without torch is told before it is imported."""

import re
import subprocess
import sys

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning import Callback, Trainer

from lit_rl import algorithms, policy, sampling, tasks
from lit_rl.algorithms import Algorithm
from lit_rl.commands.early import BASES, FITTING, GROUPS, OF_GROUPS, checked
from lit_rl.commands.options import DEFAULT_CLASSES
from lit_rl.commands.settings import CALLBACKS
from lit_rl.commands.signatures import parameters
from lit_rl.data import RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.tasks import Task

PACKAGES = {"model": algorithms, "model.policy": policy, "data.task": tasks, "data.sampler": sampling}


@pytest.mark.parametrize(
    "args, said",
    [
        (["train"], "no subcommand 'train'; choose one of fit, validate, test, estimate, verify, fit-reward, export"),
        (["fit", "--model", "GRPP"], r"model: no class 'GRPP' \(did you mean GRPO\?\)"),
        (["fit", "--model", "Algorithm"], "model: Algorithm is what the others are made of; choose one of ABC"),
        (["fit", "--data.task=GSM8"], "data.task: no class 'GSM8'"),
        (["test", "--ckpt_path", "nowhere.ckpt"], "ckpt_path: no file nowhere.ckpt"),
        (["validate", "--config=nowhere.yaml"], "--config: no file nowhere.yaml"),
        (["fit", "--modle.samples", "3"], r"unrecognized arguments: --modle.samples \(did you mean --model\?\)"),
        (["fit", "--model.sampels", "3"], r"model.sampels is no setting of GRPO \(did you mean model.samples\?\)"),
        (["fit", "--model.cuts=Stride", "--model=PPO"], "model.cuts is no setting of PPO"),
        (["fit", "--trainer.max_epoch", "3"], r"trainer.max_epoch is no .* \(did you mean trainer.max_epochs\?\)"),
        (["test", "--data.task.init_args.lenght=6", "--data.task", "KeyToken"], "data.task.lenght is no setting of"),
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


def exported():
    """The classes that a command line can name."""
    found = {each: getattr(package, each) for package in PACKAGES.values() for each in package.__all__}
    return {name: cls for name, cls in found.items() if isinstance(cls, type)}


@pytest.mark.parametrize("cls", [*exported().values(), Trainer, RolloutDataModule, *CALLBACKS.values()])
def test_the_source_takes_all_that_the_parser_does(cls):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "it")
    taken = {action.dest.split(".")[1] for action in parser._actions if action.dest.startswith("it.")}
    read = parameters(cls.__name__)
    assert read is None or read >= taken
    if issubclass(cls, Algorithm | Task | Trainer | Callback) and cls.__name__ not in BASES:
        assert read is not None


def test_groups_have_their_classes():
    ours = {name: cls.__name__ for name, cls in CALLBACKS.items()}
    assert OF_GROUPS == {"trainer": "Trainer", "data": "RolloutDataModule", **ours}


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
