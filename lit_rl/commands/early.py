"""Mistakes that are told before anything heavy is imported, which takes seconds. The parser finds the others."""

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from lit_rl.commands.explain import INSTEAD
from lit_rl.commands.options import DEFAULT_CLASSES, FILE, in_order
from lit_rl.commands.signatures import parameters
from lit_rl.errors import UsageError

FITTING = ("fit", "validate", "test")
COMMANDS = (*FITTING, "estimate", "verify", "fit-reward", "export")
PACKAGES = {"model": "algorithms", "model.policy": "policy", "data.task": "tasks", "data.sampler": "sampling"}
OF_GROUPS = {  # the classes whose settings the other groups are
    **{"trainer": "Trainer", "data": "RolloutDataModule", "reward": "RewardCallback", "budget": "Budget"},
    **{"gradient_variance": "GradientVariance", "credit": "Credit", "diagnostics": "Diagnostics"},
    **{"transcripts": "Transcripts", "value_accuracy": "ValueAccuracy", "checkpoint": "IterationCheckpoint"},
}
PARTS = ("class_path", "init_args", "dict_kwargs", "help")  # of any class
BASES = ("Algorithm", "Task", "Environment", "Turn", "Sampler")
GROUPS = {  # of the options
    *("trainer", "model", "data", "reward", "budget", "gradient_variance", "credit", "diagnostics", "transcripts"),
    *("value_accuracy", "checkpoint", "seed_everything", "ckpt_path", "weights_only", "verbose"),
    *("config", "print_config", "help"),
}


def checked(args: list[str]) -> list[str]:
    """The arguments of ``python -m lit_rl``, those of fit, estimate, validate and test in order.

    Raises:
        UsageError: no such subcommand, a file that is missing or can't be read, no class of that short name, no such
            setting.
    """
    if not args or (args[0].startswith("-") and not FILE.match(args[0])):
        return args
    if FILE.match(args[0]):
        raise UsageError(f"{args[0]} stands behind the subcommand: python -m lit_rl fit {args[0]} ...")
    if args[0] not in COMMANDS:
        raise UsageError(f"no subcommand '{args[0]}'; choose one of {', '.join(COMMANDS)}")
    if args[0] not in (*FITTING, "estimate"):
        return args
    groups = {*GROUPS, "memory"} if args[0] == "estimate" else GROUPS
    ordered = in_order(args[1:], DEFAULT_CLASSES)
    classes = dict(OF_GROUPS)
    for option, value in _pairs(ordered):
        key = option.removeprefix("--")
        group = re.split(r"[.+]", key)[0]
        if option.startswith("--") and group in INSTEAD:
            raise UsageError(f"{group} is no setting; set {INSTEAD[group]}")
        if option.startswith("--") and group not in groups:
            near = difflib.get_close_matches(group, groups, 1)
            raise UsageError(f"unrecognized arguments: {option}{f' (did you mean --{near[0]}?)' if near else ''}")
        if key in PACKAGES:
            classes.pop(key, None)
            if re.fullmatch(r"[A-Za-z]\w*", value) and value not in ("null", "true", "false"):
                _check_class(key, value)
                classes[key] = value
        elif option.startswith("--"):
            _check_setting(re.sub(r"\.init_args(?=\.)|\+$", "", key), classes)
        if key == "ckpt_path" and value != "null" and not Path(value).expanduser().is_file():
            raise UsageError(
                f"ckpt_path: no file {value}; give the path of a checkpoint, for one in mlruns/checkpoints"
            )
    return [args[0], *ordered]


def _pairs(args: list[str]) -> Iterator[tuple[str, str]]:
    """Options with their values, whichever way they are written."""
    for arg, after in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = arg.partition("=")
        if name.startswith("--"):
            yield name, value if equals else after


def _check_setting(key: str, classes: dict[str, str]) -> None:
    """That the class that a setting is for has it, if that class is known."""
    parent = next((each for each in PACKAGES if "." in each and key.startswith(f"{each}.")), key.partition(".")[0])
    name = key.removeprefix(parent).lstrip(".").partition(".")[0]
    known = parameters(classes[parent]) if parent in classes else None
    if known is not None and name and name not in (*known, *PARTS):
        near = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean {parent}.{near[0]}?)" if near else ""
        raise UsageError(f"{parent}.{name} is no setting of {classes[parent]}{hint}; --print_config shows those it has")


def _check_class(key: str, name: str) -> None:
    source = Path(__file__).parents[1] / PACKAGES[key] / "__init__.py"
    exported = next(
        node.value
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    names = [each for each in ast.literal_eval(exported) if each[0].isupper()]
    offered = ", ".join(each for each in names if each not in BASES)
    if name in BASES:
        raise UsageError(f"{key}: {name} is what the others are made of; choose one of {offered}")
    if name not in names:
        near = difflib.get_close_matches(name.lower(), [each.lower() for each in names], 1)
        hint = f" (did you mean {next(each for each in names if each.lower() == near[0])}?)" if near else ""
        raise UsageError(f"{key}: no class '{name}'{hint}; choose one of {offered}, or give an import path")
