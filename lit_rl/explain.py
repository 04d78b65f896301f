"""A parser's message of many lines as one line that a user can act on."""

import difflib
import re
from inspect import isabstract
from types import ModuleType

# what jsonargparse says besides the reason
_NOISE = re.compile(
    r"Does not validate|Problem with given class_path|Subtypes:|Errors:|Given value|Expected a path but"
    r"|Expected a <class 'NoneType'>"
)


def explain(message: str, choices: dict[str, tuple[ModuleType, type]]) -> str:
    """The innermost reason, behind the setting it is about; for a mistyped class, the names there are.

    Args:
        message: what jsonargparse says.
        choices: for each setting that takes a class: the package that exports the classes, and their base.
    """
    text = message.replace("\\n", "\n").replace("\\'", "'")
    keys = re.findall(r'Parser key "([^"]+)"', text)
    setting = ".".join(keys)
    lines = [_bare(line) for line in text.splitlines()]
    reasons = [line for line in lines if line and not _NOISE.match(line)] or [" ".join(text.split())]
    reason = reasons[0]
    if setting in choices:
        package, base = choices[setting]
        if "is abstract" in reason:
            return f"{setting}: name a class{_offer('', package, base)}"
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
    if option:
        return f"{setting}.{option[1]} is not a setting of the chosen class; see --{setting}.help"
    if not keys or re.match(r"[\w.]+(:| is | x )", reason):
        return reason  # names its setting itself
    return f"{setting}: {reason}"


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
    classes = [c for c in vars(package).values() if isinstance(c, type) and issubclass(c, base) and not isabstract(c)]
    names = {c.__name__.lower(): c.__name__ for c in classes if c is not base}
    near = difflib.get_close_matches(given.lower(), names, 1)
    hint = f" (did you mean {names[near[0]]}?)" if near else ""
    return f"{hint}; choose one of {', '.join(names.values())}, or give an import path"
