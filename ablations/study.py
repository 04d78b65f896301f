"""What a study is: arms, seeds and planned comparisons, written down before the first run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Config = dict[str, Any]  # a partial configuration of lit_rl's command line


@dataclass(frozen=True)
class Arm:
    """One of the things compared: a name, and the settings in which it differs from the study's base.

    An arm with ``trainer.max_epochs: 0`` is not trained, only evaluated, with ``--smoke`` as well. Its gain is measured
    against ``baseline``, the study's if None; arms with one baseline solve the same task and share their panels.
    """

    name: str
    config: Config
    baseline: str | None = None


@dataclass(frozen=True)
class Cell:
    """One training run: an arm with a seed. ``config`` is complete, the seed included."""

    study: str
    arm: str
    seed: int
    config: Config

    @cached_property
    def hash(self) -> str:
        """12 hexadecimal digits that name the configuration, whatever the order of its keys."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def iterations(self) -> int:
        return int(self.config["trainer"]["max_epochs"])

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A question, and the grid of runs that answers it.

    Attributes:
        question: what the study asks.
        source: where the question comes from.
        baseline: the arm that gains are measured against, unless an arm names another.
        primary_metric: decides the question.
        comparisons: planned pairs (arm, against which arm), at most six.
        base: settings shared by all arms.
        seeds: when none are given.
        smoke: settings merged last with ``--smoke``, to try the study out in seconds.
        notes: limits of the answer, for the report.
    """

    name: str
    question: str
    source: str
    arms: tuple[Arm, ...]
    baseline: str
    primary_metric: str
    comparisons: tuple[tuple[str, str], ...]
    base: Config = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    smoke: Config = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = {*map(self.baseline_of, self.arm_names), *(name for pair in self.comparisons for name in pair)}
        unknown = named - set(self.arm_names)
        if unknown or len(self.comparisons) > 6:
            raise ValueError(f"study {self.name}: no arm {unknown}" if unknown else "more than six comparisons")

    @property
    def arm_names(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.arms)

    def baseline_of(self, arm: str) -> str:
        return next(each.baseline for each in self.arms if each.name == arm) or self.baseline

    def label(self, smoke: bool) -> str:
        """Name of the MLflow experiment and of the results folder."""
        return f"{self.name}-smoke" if smoke else self.name

    def cell(self, arm: Arm, seed: int, smoke: bool = False) -> Cell:
        config = merge(self.base, arm.config)
        untrained = config["trainer"]["max_epochs"] == 0
        if smoke:
            config = merge(config, self.smoke)
        if untrained:
            config = merge(config, {"trainer": {"max_epochs": 0}})
        return Cell(self.name, arm.name, seed, merge(config, {"seed_everything": seed}))

    def find(self, arm: str, seed: int, digest: str, smoke: bool) -> Cell | None:
        """The cell of that arm and seed, if the hash is that of the study as it is now, not of an earlier one."""
        cells = (self.cell(each, seed, smoke) for each in self.arms if each.name == arm)
        return next((cell for cell in cells if cell.hash == digest), None)

    def cells(self, seeds: Sequence[int] | None = None, smoke: bool = False) -> list[Cell]:
        """The grid, seed by seed: an interrupted sweep leaves all arms with the same seeds."""
        return [self.cell(arm, seed, smoke) for seed in (self.seeds if seeds is None else seeds) for arm in self.arms]


def merge(base: Config, changes: Config) -> Config:
    """``base`` with ``changes`` written over it, dictionaries within dictionaries; neither is modified."""
    merged = dict(base)
    for key, value in changes.items():
        mergeable = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if mergeable else value
    return merged
