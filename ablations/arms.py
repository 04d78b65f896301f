"""What a study compares: arms, what is made before they run, and what is tried for them. See :mod:`ablations.study`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ablations.config import Config, merge, nested

ALLOCATIONS = "give settings by name: {'8 x 4': {'data.prompts_per_iteration': 8, 'model.samples': 4}}"


@dataclass(frozen=True)
class Stage:
    """What is made, by ``python -m lit_rl``, before the cells that need it run: a reward model, a DPO policy.

    Attributes:
        name: stands in braces for its folder in an arm's settings.
        args: of the command line; ``{folder}`` stands for the folder to fill, ``{seed}`` for the cell's seed.
        smoke: further ones with ``--smoke``.
    """

    name: str
    args: tuple[str, ...]
    smoke: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str:
        """Of a stage that trains, in an arm's settings."""
        return f"{{{self.name}}}/last.ckpt"


@dataclass(frozen=True)
class Arm:
    """One of the things compared: a name, and the settings in which it differs from the study's base.

    An arm with ``trainer.max_epochs: 0`` is not trained, only evaluated, with ``--smoke`` as well. Its gain is measured
    against ``baseline``, the study's if None; arms with one baseline solve the same task and share their panels.

    Attributes:
        config: by names as on the command line (``model.samples``), or nested.
        tuned_as: the name of a choice that trials make; arms of one name share it. None keeps the arm's settings.
        trial: whether the arm is tried itself, with each allocation and each learning rate. If not, it takes what the
            trials of other arms choose.
        allocations: ways to spend an update's tokens, by name (``8 x 4``, prompts x responses to each): settings
            over the arm's own. They are in order, from most prompts to fewest.
        chosen: what the trials chose, once the study is tuned.
        frozen: the policy stays as it is: the arm's gradients are measured, and it is neither trained nor tested.
        task: the arm's name begins with it; a report with several has a column for each.

    Raises:
        ValueError: allocations are not settings by name.
    """

    name: str
    config: Config
    baseline: str | None = None
    stages: tuple[Stage, ...] = ()
    tuned_as: str | None = None
    trial: bool = True
    frozen: bool = False
    task: str = ""
    allocations: Mapping[str, Config] = field(default_factory=dict)
    chosen: "Choice | None" = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", nested(self.config))
        given: Any = self.allocations
        if not isinstance(given, Mapping) or not all(isinstance(each, Mapping) for each in given.values()):
            raise ValueError(f"arm {self.name}: allocations are {given!r}; {ALLOCATIONS}")
        object.__setattr__(self, "allocations", {name: nested(each) for name, each in given.items()})

    @property
    def tried(self) -> bool:
        """Whether it has trials of its own."""
        return self.tuned_as is not None and self.trial

    def but(self, name: str, config: Mapping[str, Any], **changes: Any) -> "Arm":
        """The arm with another name and some other settings, with what trials choose for the arm."""
        return replace(self, name=name, config=merge(self.config, nested(config)), **{"trial": False, **changes})


class Choice(NamedTuple):
    """What is tried of an arm, and the best of it: one of its allocations, empty where it has none, and a rate."""

    allocation: str
    rate: float


class Trial(NamedTuple):
    """A finished trial: of an arm with a choice and a seed, and its metrics by name."""

    arm: str
    choice: Choice
    seed: int
    config_hash: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Tuning:
    """What is tried for each arm, with each of its allocations, on seeds that the study itself does not use.

    Attributes:
        rates: learning rates.
        seeds: of the trials.
        metric: whose mean over these seeds chooses; empty takes the study's primary one.
        rates_by_task: other learning rates for the arms of a task.

    Raises:
        ValueError: rates are not different numbers above 0, or there is none.
    """

    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    metric: str = ""
    rates_by_task: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: Any
        for given in (self.rates, *self.rates_by_task.values()):
            if not _different(given, (int, float)) or not all(0 < rate < math.inf for rate in given):
                raise ValueError(
                    f"rates of the trials are {given!r}; give different numbers above 0, such as (1e-3, 3e-3)"
                )
        if wrong := seeds_fault(self.seeds):
            raise ValueError(f"seeds of the trials {wrong}")

    def rates_of(self, arm: Arm) -> tuple[float, ...]:
        """The learning rates that an arm is tried with."""
        return self.rates_by_task.get(arm.task, self.rates)


def _different(given: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether it is one or more different things of a kind."""
    listed = isinstance(given, tuple | list) and all(isinstance(each, kind) for each in given)
    return listed and 0 < len(given) == len(set(given))


def seeds_fault(seeds: Any) -> str:
    """Why these are no seeds; empty if they are."""
    if _different(seeds, int) and min(seeds) >= 0:
        return ""
    return f"are {seeds!r}; give different whole numbers from 0, such as (0, 1, 2)"
