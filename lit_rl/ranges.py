"""The ranges of numbers: types for the parameters of constructors, and the one check that reads them.

A parameter annotated as ``Count`` takes integers of at least 1, on the command line, in a file and in Python.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from inspect import signature
from numbers import Integral, Real
from pkgutil import resolve_name
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from lit_rl.errors import UsageError


@dataclass(frozen=True, repr=False)
class Range:
    """The numbers from ``least`` to ``most``. NaN is in no range.

    Attributes:
        above: ``least`` itself is out.
        below: ``most`` itself is out.
        infinite: infinity is in, where it lies between the ends.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False

    def __contains__(self, x: Any) -> bool:
        above = x > self.least if self.above else x >= self.least
        below = x < self.most if self.below else x <= self.most
        return bool(above and below and (self.infinite or math.isfinite(x)))

    def __repr__(self) -> str:
        ends = []
        if self.least > -math.inf:
            ends.append(f"{'above' if self.above else 'at least'} {self.least}")
        if self.most < math.inf:
            ends.append(f"{'below' if self.below else 'at most'} {self.most}")
        return " and ".join(ends) or ("but not NaN" if self.infinite else "finite")


Count = Annotated[int, Range(1)]
Several = Annotated[int, Range(2)]
Whole = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Port = Annotated[int, Range(1, 2**16 - 1)]
Steps = Annotated[int, Range(2, 8)]
Terms = Annotated[int, Range(2, 10)]
Operand = Annotated[int, Range(1, 10**6)]
OrForever = Annotated[int, Range(-1)]
Number = Annotated[float, Range()]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
SomeShare = Annotated[float, Range(0, 1, above=True)]
ShareBelowOne = Annotated[float, Range(0, 1, below=True)]
# limits of measurements, which infinity turns off
Limit = Annotated[float, Range(0, infinite=True)]
LimitOfFactor = Annotated[float, Range(1, infinite=True)]
AnyLimit = Annotated[float, Range(infinite=True)]


def fault(value: Any, hint: Any) -> str | None:
    """What a value of the type ``hint`` must be and is not; None if it is in range, or there is no range."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return None if value in parts else f"must be one of {', '.join(map(str, parts))}"
    if get_origin(hint) is Annotated:
        ranges = [note for note in parts[1:] if isinstance(note, Range)]
        kind: type = Integral if parts[0] is int else Real
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not ranges or (is_number and all(value in each for each in ranges)):
            return None
        a_number = "" if is_number else "an integer, " if kind is Integral else "a number, "
        return f"must be {a_number}{' and '.join(map(repr, ranges))}"
    if NoneType in parts:
        return None if value is None else next((reason for part in parts if (reason := fault(value, part))), None)
    if parts and isinstance(value, tuple | list):
        each = parts if len(parts) == len(value) and ... not in parts else parts[:1] * len(value)
        reasons = (fault(x, part) for x, part in zip(value, each, strict=True))
        return next((f"each {reason}" for reason in reasons if reason), None)
    return None


def has_range(hint: Any) -> bool:
    """Whether a type has a range, itself or in its parts."""
    return isinstance(hint, Range) or any(map(has_range, [*get_args(hint), *getattr(hint, "__metadata__", ())]))


@cache
def ranges_of(cls: type) -> dict[str, Any]:
    """The types that :func:`fault` judges, of a class's settings: its constructor's parameters and those it passes on.

    These are the types with a range, and choices.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        init: Any = vars(base).get("__init__")
        try:
            hints = get_type_hints(init, include_extras=True) if hasattr(init, "__annotations__") else {}
        except NameError:  # of a type that is there for type checkers alone
            hints = init.__annotations__
        found |= {name: hint for name, hint in hints.items() if has_range(hint) or get_origin(hint) is Literal}
    return found


def check(hints: Mapping[str, Any], given: Mapping[str, Any], setting: str) -> None:
    """That the numbers given are in their ranges.

    Args:
        hints: types by name.
        given: values by name.
        setting: what stands in front of the names, in messages; with a dot at its end, or empty.

    Raises:
        UsageError: one is not.
    """
    for name, hint in hints.items():
        reason = fault(given[name], hint) if name in given else None
        if reason:
            it = "" if reason.startswith("each") else "it "
            raise UsageError(f"{setting}{name} is {given[name]}; {it}{reason}")


def check_classes(config: Any, setting: str = "") -> None:
    """:func:`check` of each class that is named in a configuration, whose classes are not built yet.

    Args:
        config: dictionaries within dictionaries, with ``class_path`` and ``init_args`` where there is a class.
        setting: what it is the value of.
    """
    if not isinstance(config, dict):
        return
    if isinstance(config.get("class_path"), str):
        config, cls = config.get("init_args") or {}, resolve_name(config["class_path"])
        if isinstance(cls, type):
            check(ranges_of(cls), config, f"{setting}.")
    for name, value in config.items():
        check_classes(value, f"{setting}.{name}" if setting else name)


class Ranged:
    """A class whose constructor refuses numbers out of the ranges of its parameters, before it does anything.

    ``class Mine(Ranged, setting="mine")`` says what its settings are called in front, and what those of its subclasses
    are.
    """

    _prefix = ""

    def __init_subclass__(cls, setting: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if setting is not None:
            cls._prefix = f"{setting}." if setting else ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        names = list(signature(cls.__init__).parameters)[1:]
        own: Any = cls
        check(ranges_of(own), {**dict(zip(names, args, strict=False)), **kwargs}, cls._prefix)
        return super().__new__(cls)
