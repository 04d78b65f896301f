"""Numbers in and out of the range of every setting, read off the annotations."""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import lit_rl
from lit_rl.algorithms import Algorithm
from lit_rl.algorithms.placements import Placement
from lit_rl.commands.fit_reward import Recipe
from lit_rl.commands.settings import CALLBACKS, OF_LIGHTNING
from lit_rl.data import RolloutDataModule
from lit_rl.data.trainer_flags import RANGES
from lit_rl.functional.cuts import CutRule
from lit_rl.policy import CausalPolicy
from lit_rl.ranges import Range, Ranged, has_range
from lit_rl.sampling import Sampler
from lit_rl.tasks import Task

PARENTS = {"model": Algorithm, "model.policy": CausalPolicy, "model.cuts": CutRule, "model.placement": Placement}
PARENTS |= {"data.task": Task, "data.sampler": Sampler}
TAKERS = {"model.cuts": "lit_rl.algorithms.TRePO", "model.placement": "lit_rl.algorithms.PPO"}  # that have the setting


class Setting(NamedTuple):
    """A number that a user may set.

    Attributes:
        parent: of its name; ``model`` for ``model.samples``.
        cls: whose constructor takes it; None where it is Lightning's.
    """

    parent: str
    name: str
    hint: Any
    cls: type | None

    def __str__(self) -> str:
        where = f"{self.cls.__name__} " if self.cls is not None and self.parent in PARENTS else ""
        return where + self.key

    @property
    def key(self) -> str:
        return f"{self.parent}.{self.name}"

    @property
    def chosen(self) -> dict[str, str]:
        """The classes to choose, for the setting to be there."""
        if self.parent not in PARENTS or self.cls is None:
            return {}
        taker = {"model": TAKERS[self.parent]} if self.parent in TAKERS else {}
        return {**taker, self.parent: f"{self.cls.__module__}.{self.cls.__qualname__}"}


def settings() -> list[Setting]:
    """All settings of ``fit`` that are numbers, each once: where it is inherited, of the class that declares it."""
    for module in pkgutil.walk_packages(lit_rl.__path__, "lit_rl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = [Setting("trainer", name, hint, None) for name, hint in RANGES.items()]
    found += [Setting(group, name, hint, None) for group, own in OF_LIGHTNING.items() for name, hint in own.items()]
    found += [Setting("data", name, hint, RolloutDataModule) for name, hint in own_ranges(RolloutDataModule)]
    found += [Setting(group, name, hint, cls) for group, cls in CALLBACKS.items() for name, hint in own_ranges(cls)]
    for parent, base in PARENTS.items():
        for cls in (base, *subclasses(base)):
            concrete = next((each for each in (cls, *subclasses(cls)) if is_complete(each)), None)
            if concrete is not None:
                found += [Setting(parent, name, hint, concrete) for name, hint in own_ranges(cls)]
    assert {type for type in subclasses(Ranged) if own_ranges(type)} - {each.cls for each in found} <= {
        *(cls for base in PARENTS.values() for cls in (base, *subclasses(base))),
        Recipe,  # of fit-reward
    }
    return list(dict.fromkeys(found))


def subclasses(cls: type) -> Iterator[type]:
    for each in cls.__subclasses__():
        if each.__module__.startswith("lit_rl."):
            yield each
            yield from subclasses(each)


def is_complete(cls: type) -> bool:
    return not inspect.isabstract(cls) and cls not in (Algorithm, Ranged) and cls.__name__ != "TokenPolicy"


def own_ranges(cls: type) -> list[tuple[str, Any]]:
    init = vars(cls).get("__init__")
    hints = get_type_hints(init, include_extras=True) if hasattr(init, "__annotations__") else {}
    return [(name, hint) for name, hint in hints.items() if has_range(hint)]


def outside(hint: Any) -> list[Any]:
    """Values out of the range of a type: beyond its ends, NaN, and the infinities that it does not name."""
    return values(hint, _outside)


def inside(hint: Any) -> list[Any]:
    """Values in the range of a type, at its ends."""
    return values(hint, _inside)


def values(hint: Any, of: Any) -> list[Any]:
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        [limits] = (note for note in parts[1:] if isinstance(note, Range))
        return of(parts[0], limits)
    if NoneType in parts:
        return [x for part in parts if has_range(part) for x in values(part, of)]
    copies = len(parts) if ... not in parts and len(parts) > 1 else 1
    return [[x] * copies for x in values(parts[0], of)]


def _outside(kind: type, limits: Range) -> list[Any]:
    step = 1 if kind is int else 1e-3
    found: list[Any] = []
    if limits.least > -math.inf:
        found.append(kind(limits.least) if limits.above else kind(limits.least) - step)
    if limits.most < math.inf:
        found.append(kind(limits.most) if limits.below else kind(limits.most) + step)
    if kind is float:
        found.append(math.nan)
        found += [x for x in (math.inf, -math.inf) if not (limits.infinite and limits.least <= x)]
    else:
        found.append(kind(max(limits.least, 0)) + 1.5)
    return found


def _inside(kind: type, limits: Range) -> list[Any]:
    step = 1 if kind is int else 1e-3
    least = max(limits.least, -1e6)
    found = [kind(least) + step if limits.above else kind(least)]
    if limits.most < math.inf:
        found.append(kind(limits.most) - step if limits.below else kind(limits.most))
    return found
