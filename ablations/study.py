"""What a study is: arms, seeds and planned comparisons, written down before the first run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

Config = dict[str, Any]  # a partial configuration of lit_rl's command line


class Preparation(NamedTuple):
    """A command line of ``python -m lit_rl`` in which ``{folder}`` stands for the folder that it fills."""

    folder: str
    args: tuple[str, ...]


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

    def at(self, seed: int, smoke: bool) -> Preparation:
        args = tuple(arg.replace("{seed}", str(seed)) for arg in (*self.args, *(self.smoke if smoke else ())))
        return Preparation(f"mlruns/stages/{self.name}-{_digest(args)}", args)


@dataclass(frozen=True)
class Arm:
    """One of the things compared: a name, and the settings in which it differs from the study's base.

    An arm with ``trainer.max_epochs: 0`` is not trained, only evaluated, with ``--smoke`` as well. Its gain is measured
    against ``baseline``, the study's if None; arms with one baseline solve the same task and share their panels.
    """

    name: str
    config: Config
    baseline: str | None = None
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One training run: an arm with a seed. ``config`` is complete, the seed included."""

    study: str
    arm: str
    seed: int
    config: Config
    preparations: tuple[Preparation, ...] = ()

    @cached_property
    def hash(self) -> str:
        """12 hexadecimal digits that name the configuration, whatever the order of its keys."""
        return _digest(self.config)

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
        made = {stage.name: stage.at(seed, smoke) for stage in arm.stages}
        config = _filled(config, {name: preparation.folder for name, preparation in made.items()})
        return Cell(self.name, arm.name, seed, merge(config, {"seed_everything": seed}), tuple(made.values()))

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


def _filled(config: Any, folders: dict[str, str]) -> Any:
    """The settings with each ``{name}`` of a stage replaced by its folder."""
    if isinstance(config, dict):
        return {key: _filled(value, folders) for key, value in config.items()}
    if isinstance(config, str):
        for name, folder in folders.items():
            config = config.replace(f"{{{name}}}", folder)
    return config


def _digest(x: Any) -> str:
    return hashlib.sha256(json.dumps(x, sort_keys=True).encode()).hexdigest()[:12]
