"""Numbers out of their ranges: each setting, from the command line, from a file and in Python."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from range_cases import Setting, inside, outside, settings
from trials import Trial

from lit_rl.commands.cli import CLI
from lit_rl.commands.options import DEFAULT_CLASSES, in_order
from lit_rl.errors import UsageError, usage_error
from lit_rl.ranges import Ranged

PROMISE = "A number out of its range is refused, whichever way it comes in"
INSIDE = "A number at the end of its range is taken"
GIVEN = {
    "RTO": {"dpo_checkpoint": "d.ckpt"},
    "ABC": {"reward_model": "r"},
    "Custom": {"path": "p", "reward": "math.fabs"},
    "ReasoningGym": {"datasets": "gcd"},
}


class Taken(Exception):
    """A command line has been read."""


class Parsed(CLI):
    """Reads a command line, and builds nothing."""

    def instantiate_classes(self) -> None:
        raise Taken


def command_line(setting: Setting, value: Any) -> list[str]:
    given = {f"{setting.parent}.{key}": x for key, x in GIVEN.get(getattr(setting.cls, "__name__", ""), {}).items()}
    chosen = [f"--{key}={x}" for key, x in {**setting.chosen, **given}.items()]
    text = yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
    return ["fit", *in_order([*chosen, f"--{setting.key}={text}"], DEFAULT_CLASSES)]


def config(setting: Setting, value: Any) -> dict[str, Any]:
    """The same as nested dictionaries, as in a file."""
    tree: dict[str, Any] = {}
    chosen = {key: name for key, name in DEFAULT_CLASSES.items()} | setting.chosen
    given = GIVEN.get(getattr(setting.cls, "__name__", ""), {})
    for key, name in chosen.items():
        _put(tree, key.split("."), {"class_path": name, "init_args": {}})
    for name, x in {**given, setting.name: value}.items():
        _put(tree, [*setting.parent.split("."), name], x)
    return tree


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        tree = tree["init_args"] if "class_path" in tree else tree
    tree[path[-1]] = value


def mistake(args: list[str]) -> str | None:
    """What is wrong with a command line, if anything is."""
    sys.argv[1:] = args
    try:
        Parsed()
    except Taken:
        return None
    except Exception as error:
        usage = usage_error(error)
        if usage is None:
            raise
        return str(usage)
    raise AssertionError("neither refused nor taken")


def is_named(message: str | None, setting: Setting) -> None:
    assert message is not None, "accepted"
    assert message.startswith(setting.key) and "\n" not in message, message


def on_the_command_line(setting: Setting, value: Any, folder: Path) -> None:
    is_named(mistake(command_line(setting, value)), setting)


def in_a_file(setting: Setting, value: Any, folder: Path) -> None:
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(config(setting, value)))
    is_named(mistake(["fit", "--config", str(file)]), setting)


def in_python(setting: Setting, value: Any, folder: Path) -> None:
    assert setting.cls is not None
    try:
        setting.cls(**{setting.name: value})
    except UsageError as error:
        is_named(str(error), setting)
    else:
        raise AssertionError("accepted")


def is_taken(setting: Setting, value: Any, folder: Path) -> None:
    message = mistake(command_line(setting, value))
    assert message is None, message


def trials() -> list[Trial]:
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    found = []
    for setting in settings():
        for i, value in enumerate(outside(setting.hint)):
            ways = {"command line": on_the_command_line}
            if i == 0 or value != value:
                ways["file"] = in_a_file
            if setting.cls is not None and issubclass(setting.cls, Ranged):
                ways["Python"] = in_python
            for way, attempt in ways.items():
                found.append(Trial(PROMISE, f"{setting} {value}, {way}", partial(attempt, setting, value)))
        for value in inside(setting.hint):
            found.append(Trial(INSIDE, f"{setting} {value}", partial(is_taken, setting, value)))
    return found


TRIALS = trials()
