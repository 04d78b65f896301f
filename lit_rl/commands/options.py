"""A command line in one order, whatever the order it was typed in: files of settings, then classes, then settings.

The parser reads options one after the other: a class that is named late keeps what was set, or filled in, for the one
before it. Imports nothing heavy, so that a mistake in a file is said at once.
"""

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import yaml

from lit_rl.errors import UsageError

DEFAULT_CLASSES = {"model": "GRPO", "data.task": "GSM8KStyle", "data.sampler": "LocalSampler"}
FILE = re.compile(r"(--config|-c)(=|$)")
LAST = re.compile(r"-h$|--(.*\.)?(help|print_config)(=|$)")
NAME = re.compile(r"(?!(true|false|null)$)[A-Za-z_][\w.]*")  # of a class, or of something else
KEPT = "policy"  # every algorithm takes one, so that it stays when the algorithm is another
Lost = dict[tuple[str, str], list[str]]  # settings by the class that they are for and the one that is chosen


class Option(NamedTuple):
    """An option as typed, and what it says.

    Attributes:
        tokens: its name and its values.
        key: the setting, ``init_args`` and ``class_path`` left out; empty for a file of settings.
        says: a dictionary of settings, or a text.
    """

    tokens: tuple[str, ...]
    key: str
    says: Any

    @property
    def name(self) -> str:
        return self.tokens[0].partition("=")[0]

    @property
    def value(self) -> str:
        return self.tokens[0].partition("=")[2] or " ".join(self.tokens[1:])

    @property
    def source(self) -> str:
        """What to call it in a message."""
        return self.value if os.path.exists(self.value) else self.name


def in_order(args: Sequence[str], defaults: Mapping[str, str]) -> list[str]:
    """The arguments of a subcommand, in an order that depends on what they say alone.

    What a file, or a value in JSON, sets for another class than the one that is named last is left out, with a line on
    stderr. Only the policy stays.

    Args:
        args: behind the subcommand's name.
        defaults: for each setting that takes a class, the one it gets where nothing names one.

    Raises:
        UsageError: a file of settings cannot be read.
    """
    options = [_option(tokens) for tokens in _split(args)]
    appended = {option.key for option in options if option.name.endswith("+")}
    options.sort(key=lambda option: _rank(option, appended))
    named = {key: name for option in options for key, name in _classes(option.says, option.key)}
    unnamed = {key: name for key, name in defaults.items() if key not in named}
    ordered = [f"--{key}={name}" for key, name in unnamed.items()]
    for option in options:
        lost: Lost = {}
        says = _settled(option.says, option.key, {**defaults, **named}, defaults, lost)
        ordered += option.tokens if says == option.says else [f"{option.name}={_text(says)}"]
        for (own, chosen), settings in lost.items():
            print(
                f"lit_rl: left out what {option.source} sets for {own}: {', '.join(settings)}; "
                f"{chosen} has its own defaults, set again what it shall share",
                file=sys.stderr,
            )
    return ordered


def _split(args: Sequence[str]) -> list[tuple[str, ...]]:
    """Each option with its values; what stands before the first is one, too."""
    starts = [i for i, arg in enumerate(args) if i == 0 or re.match(r"--|-[a-z]", arg)]
    return [tuple(args[a:b]) for a, b in zip(starts, [*starts, len(args)][1:], strict=True)]


def _option(tokens: tuple[str, ...]) -> Option:
    name, equals, value = tokens[0].partition("=")
    text = value if equals else " ".join(tokens[1:])
    if FILE.match(tokens[0]):
        return Option(tokens, "", _file(text, "--config"))
    key = re.sub(r"\.class_path$|\.init_args(?=\.)", "", name.lstrip("-").removesuffix("+"))
    says: Any = text
    if text.startswith("{"):
        with suppress(yaml.YAMLError):  # the parser's to say
            says = yaml.safe_load(text)
    elif "." not in key and text.endswith((".yaml", ".yml", ".json")):  # of a group, or of the algorithm
        says = _file(text, name)
    return Option(tokens, key, says)


def _file(text: str, option: str) -> dict[str, Any]:
    """The settings in a file, or in the text itself."""
    is_file = os.path.exists(text)
    advice = "give a YAML file of settings"
    try:
        settings = yaml.safe_load(Path(text).read_text(encoding="utf-8") if is_file else text)
    except OSError as error:
        raise UsageError(f"{option}: {text} cannot be read ({error.strerror}); {advice}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{option}: {text} is no YAML ({' '.join(str(error).split())}); {advice}") from None
    if not is_file and not isinstance(settings, dict):
        raise UsageError(f"{option}: no file {text}; {advice}")
    if not isinstance(settings, dict | None):
        raise UsageError(f"{option}: {text} holds no settings by name, but a {type(settings).__name__}; {advice}")
    return settings or {}


def _rank(option: Option, appended: set[str]) -> tuple[int, str]:
    """Files first, then settings by their depth: a class comes before what is set for it. Lists keep their order."""
    if LAST.match(option.tokens[0]):
        return sys.maxsize, ""
    group = next((key for key in appended if option.key.startswith(f"{key}.")), option.key)
    return (1 + group.count("."), group) if option.key else (0, "")


def _classes(says: Any, key: str) -> Iterator[tuple[str, str]]:
    """The settings that are given a class, or another name, and which."""
    if isinstance(says, str) and NAME.fullmatch(says):
        yield key, says
    elif isinstance(says, dict):
        if isinstance(says.get("class_path"), str):
            yield key, says["class_path"]
        for name, each in _settings(says).items():
            yield from _classes(each, f"{key}.{name}".lstrip("."))


def _settled(says: Any, key: str, named: Mapping[str, str], defaults: Collection[str], lost: Lost) -> Any:
    """The same settings without those for another class than the one ``named``, which are listed in ``lost``."""
    if not isinstance(says, dict):
        return says
    settings = {name: (f"{key}.{name}".lstrip("."), each) for name, each in _settings(says).items()}
    own = says.get("class_path", named[key] if key in defaults else None)
    if not isinstance(own, str):
        return {name: _settled(each, path, named, defaults, lost) for name, (path, each) in settings.items()}
    chosen = named.get(key, own)
    if not same_class(own, chosen):
        lost.setdefault((_short(own), _short(chosen)), []).extend(
            path for name, (path, _) in settings.items() if name != KEPT
        )
        settings = {name: each for name, each in settings.items() if name == KEPT}
        own = chosen
        if not settings:
            return chosen
    inner = {name: _settled(each, path, named, defaults, lost) for name, (path, each) in settings.items()}
    others = {name: each for name, each in says.items() if name == "dict_kwargs"}
    return {"class_path": own, **({"init_args": inner} if inner else {}), **others}


def _settings(says: dict[str, Any]) -> dict[str, Any]:
    """What is set for a class, or in a group."""
    if "class_path" in says or "init_args" in says:
        inner = says.get("init_args")
        return inner if isinstance(inner, dict) else {}
    return says


def same_class(one: str, other: str) -> bool:
    """Whether two names are of one class; a name without a path is that of any class called so."""
    if "." not in one or "." not in other:
        return _short(one) == _short(other)
    try:
        return one == other or resolve_name(one) is resolve_name(other)
    except (ImportError, AttributeError, ValueError):
        return False


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _text(says: Any) -> str:
    """A name, or settings as YAML in one line."""
    if isinstance(says, str):
        return says
    return str(yaml.safe_dump(says, default_flow_style=True, width=sys.maxsize, sort_keys=False)).strip()
