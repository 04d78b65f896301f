"""A parser's message of many lines as one line that a user can act on."""

import difflib
import re
import sys
from collections.abc import Iterator
from inspect import isabstract
from types import ModuleType
from typing import Any

from lit_rl.errors import usage_error

# what jsonargparse says besides the reason
_NOISE = re.compile(
    r"Does not validate|Problem with given class_path|Subtypes:|Errors:|Given value|Expected a path but"
    r"|Expected a <class 'NoneType'>"
)
_TYPE = re.compile(r"Expected a (<class '[^']*'>|typing\.Literal\[.*?\])(?:\. Got value: (.*))?$")
_KINDS = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "NoneType": "null"},
    **{"list": "a list", "tuple": "a list", "collections.abc.Sequence": "a list", "dict": "a dictionary"},
}
INSTEAD = {  # settings that Lightning's users look for, and ours
    "optimizer": "--model.optimizer, with --model.learning_rate",
    "lr_scheduler": "--model.schedule, with --model.warmup_steps",
    "model.optimizer.lr": "--model.learning_rate",
}


def explain(message: str, choices: dict[str, tuple[ModuleType, type]]) -> str:
    """The innermost reason, behind the setting it is about; for a mistyped class, the names there are.

    Args:
        message: what jsonargparse says.
        choices: for each setting that takes a class: the package that exports the classes, and their base.
    """
    text = message.replace("\\n", "\n").replace("\\'", "'")
    keys = re.findall(r'Parser key "([^"]+)"', text)
    setting = ".".join(keys)
    if f"{setting}.".startswith("model.optimizer."):  # a function or a class builds it
        text = re.sub(r"Type \S*Callable\b.* expects a function or a callable class: ", "", text)
        text = re.sub(r"\. Got value: Namespace\(.*", "", text)
    lines = [_bare(line) for line in text.splitlines()]
    reasons = [line for line in lines if line and not _NOISE.match(line)] or [" ".join(text.split())]
    reason = next((each for each in reasons if not _TYPE.match(each)), reasons[0])
    if setting in choices:
        package, base = choices[setting]
        if "is abstract" in reason:
            return f"{setting}: name a class{_offer('', package, base)}"
        absent = re.match(r"module '(\S+)' has no attribute '(\w+)'", reason)
        if absent and absent[1] != package.__name__ and (own := _defined(absent[1], base)):
            return f"{setting}: {absent[1]} has no class '{absent[2]}'{_near(absent[2], own)}; it has {', '.join(own)}"
        nowhere = re.match(r"No module named '(\S+)'", reason)
        if nowhere:
            return (
                f"{setting}: no module '{nowhere[1]}'; a class of yours stands in a file of the working directory, or "
                "in an installed package"
            )
        reason = re.sub(r"^module '(\S+)' has no attribute '(\w+)'", r"Import path \1.\2", reason)
        unknown = re.match(r"Expected a dot import path string: (\S+)|Import path (\S+\.\S+)", reason)
        if unknown:
            return f"{setting}: no class '{unknown[1] or unknown[2]}'{_offer(unknown[1] or '', package, base)}"
    missing = re.match(r"the following arguments are required: (.+)", reason)
    if keys and missing:
        names = " and ".join(f"{setting}.{name}" for name in missing[1].split(", "))
        return f"{names} must be given; see --{setting}.help"
    path = re.match(r"Expected a dot import path string: (\S+)", reason)
    if path:
        return f"{setting}: '{path[1]}' is no import path; give one, like my_module.{path[1]}"
    function = re.match(
        r"Type \S*Callable\b.* expects a function or a callable class: (.*?)(\. Got value: .*)?$", reason
    )
    if function:
        return f"{setting}: no such function ({function[1]}); give its import path, like my_module.my_function"
    option = re.match(r"Option '(\S+)' is not accepted", reason)
    if option and f"{setting}.{option[1]}" in INSTEAD:
        return f"{setting}.{option[1]} is no setting; set {INSTEAD[f'{setting}.{option[1]}']}"
    if option:
        return f"{setting}.{option[1]} is not a setting of the chosen class; see --{setting}.help"
    group = re.match(r"Subcommand '\w+' does not accept option '(\w+)", reason)
    if group and group[1] in INSTEAD:
        return f"{group[1]} is no setting; set {INSTEAD[group[1]]}"
    if keys and _TYPE.match(reason):
        return f"{setting} {_mistaken(lines, reason)}"
    if not keys or re.match(r"[\w.]+(:| is | x )", reason):
        return reason  # names its setting itself
    return f"{setting}: {reason}"


def told(error: BaseException, settings: dict[str, Any]) -> str:
    """What was raised while objects were built, as one line that names what it is about.

    Args:
        error: of ours, or of a class or a library, whose message nobody wrote for this.
        settings: all of them, with ``class_path`` where a class is chosen.
    """
    usage = usage_error(error)
    if usage is not None:
        return str(usage)
    within = re.findall(r"Problem with given class_path '([^']*)':\s*([^\n]*)", str(error))
    if within:
        name, reason = within[-1]
        return f"{next(_places(name, settings), '')} {name.rpartition('.')[2]}: {reason}".lstrip()
    return f"{type(error).__name__}: {' '.join(str(error).split())} (LIT_RL_DEBUG=1 shows where)"


def _places(name: str, settings: Any, key: str = "") -> Iterator[str]:
    """The settings that choose the class of that import path."""
    if isinstance(settings, dict):
        if settings.get("class_path") == name:
            yield key
        for part, each in settings.items():
            yield from _places(name, each, key if part == "init_args" else f"{key}.{part}".lstrip("."))
    elif isinstance(settings, list):
        for each in settings:
            yield from _places(name, each, key)


def _mistaken(lines: list[str], reason: str) -> str:
    """The value that the innermost check refuses, and the types or names that it takes."""
    first = lines.index(reason)
    within = [reason]  # the checks of one value, which is told behind them, or with a single one
    given = _TYPE.match(reason)[2]  # type: ignore[index]
    for line in lines[first + 1 :] if given is None else ():
        if line.startswith("Given value: "):
            given = line.removeprefix("Given value: ")
            break
        within.append(line)
    names: list[str] = []
    for expected in filter(None, map(_TYPE.match, within)):
        names += re.findall(r"'([^']*)'", expected[1]) if "Literal" in expected[1] else [_kind(expected[1])]
    *some, last = dict.fromkeys(names)
    return f"is {given}; choose {', '.join(some)}{' or ' if some else ''}{last}"


def _kind(name: str) -> str:
    """What a type is called, for someone who sets it."""
    bare = name.removeprefix("<class '").removesuffix("'>")
    return _KINDS.get(bare, f"a {bare.rpartition('.')[2]}")


def _bare(line: str) -> str:
    """The line without bullet, parser key, and quotes that open or close what stands on several lines."""
    line = re.sub(r"""^[-\s]*(['"]?Parser key "[^"]*":)?\s*""", "", line).rstrip()
    for quote in "'\"":
        if len(line) > 1 and line[0] == line[-1] == quote:
            line = line[1:-1]
        elif line.count(quote) % 2:
            line = line.removeprefix(quote) if line.startswith(quote) else line.removesuffix(quote)
    return line


def _offer(given: str, package: ModuleType, base: type) -> str:
    names = [each.__name__ for each in _classes(package, base)]
    return f"{_near(given, names)}; choose one of {', '.join(names)}, or give an import path"


def _defined(module: str, base: type) -> list[str]:
    """Names of the classes that could be chosen, of those that an imported module defines itself."""
    found = _classes(sys.modules[module], base) if module in sys.modules else []
    return [each.__name__ for each in found if each.__module__ == module]


def _classes(module: ModuleType, base: type) -> list[type]:
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base) and not isabstract(c)]
    return [each for each in classes if each is not base]


def _near(given: str, names: list[str]) -> str:
    """What may have been meant."""
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), lower, 1)
    return f" (did you mean {lower[near[0]]}?)" if near else ""
