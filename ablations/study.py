"""What a study is: arms, seeds and planned comparisons, written down before the first run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Literal, NamedTuple

from ablations.config import Config, filled, merge


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

    Attributes:
        rate: whose learning rate is tuned; arms of one name share one. None keeps that of the settings.
        trial: whether the arm itself is tried with each rate.
        frozen: the policy stays as it is: the arm's gradients are measured, and it is neither trained nor tested.
        task: the arm's name begins with it; a report with several has a column for each.
    """

    name: str
    config: Config
    baseline: str | None = None
    stages: tuple[Stage, ...] = ()
    rate: str | None = None
    trial: bool = True
    frozen: bool = False
    task: str = ""


class Reading(NamedTuple):
    """What its authors read from a study's outcomes, for as long as a rerun has the same.

    Attributes:
        text: two sentences.
        outcomes: of the planned comparisons, then of the exploratory ones: ``above``, ``below`` or ``unresolved``.
    """

    text: str
    outcomes: tuple[str, ...]


class Comparison(NamedTuple):
    """A question to two arms, or to the means over several arms each, with what theory says beforehand.

    Attributes:
        arms, against: names; the value of several is the mean over them, by seed.
        predicted: of ``arms``, relative to ``against``.
        because: the reason.
        name: in tables; empty takes the arms'.
        metric: empty takes the study's primary one.
    """

    arms: tuple[str, ...]
    against: tuple[str, ...]
    predicted: Literal["above", "below", "equal", ""] = ""
    because: str = ""
    name: str = ""
    metric: str = ""

    def __str__(self) -> str:
        return self.name or f"{' + '.join(self.arms)} against {' + '.join(self.against)}"


@dataclass(frozen=True)
class Tuning:
    """The learning rates tried for each arm, and the seeds of the trials, which the study itself does not use."""

    rates: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One training run: an arm with a seed. ``config`` is complete, the seed included."""

    study: str
    arm: str
    seed: int
    config: Config
    preparations: tuple[Preparation, ...] = ()
    frozen: bool = False

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
        primary_metric: decides the question; of ``StudyResults.value``.
        comparisons: planned ones, at most six, whose p are adjusted together.
        controls: comparisons that show the machinery to be sound.
        exploratory: comparisons that were not planned, made after the runs that they follow up.
        base: settings shared by all arms.
        seeds: when none are given.
        tuning: of the learning rates; None where they stand in the settings.
        hours: the budget on two cores.
        kappas: costs of a trained token, in generated ones, at which the noise of frozen arms is compared.
        scale: ``tiny``, ``mid`` or ``small``.
        smoke: settings merged last with ``--smoke``, to try the study out in seconds.
        notes: limits of the answer, for the report.
        reading: of the outcomes that were found.
    """

    name: str
    question: str
    source: str
    arms: tuple[Arm, ...]
    baseline: str
    primary_metric: str
    comparisons: tuple[Comparison, ...]
    controls: tuple[Comparison, ...] = ()
    exploratory: tuple[Comparison, ...] = ()
    base: Config = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning: Tuning | None = None
    hours: float | None = None
    kappas: tuple[float, ...] = ()
    scale: str = "tiny"
    smoke: Config = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reading: Reading | None = None

    def __post_init__(self) -> None:
        pairs = (*self.comparisons, *self.controls, *self.exploratory)
        named = {*map(self.baseline_of, self.arm_names), *(name for pair in pairs for name in pair.arms + pair.against)}
        unknown = named - set(self.arm_names)
        if unknown or len(self.comparisons) > 6:
            raise ValueError(f"study {self.name}: no arm {unknown}" if unknown else "more than six comparisons")
        if self.tuning is not None and set(self.tuning.seeds) & set(self.seeds):
            raise ValueError(f"study {self.name}: tuned on seeds that it uses")

    @property
    def arm_names(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.arms)

    def metric_of(self, comparison: Comparison) -> str:
        return comparison.metric or self.primary_metric

    def baseline_of(self, arm: str) -> str:
        return self.arm(arm).baseline or self.baseline

    def arm(self, name: str) -> Arm:
        return next(each for each in self.arms if each.name == name)

    def label(self, smoke: bool) -> str:
        """Name of the MLflow experiment and of the results folder."""
        return f"{self.key}-smoke" if smoke else self.key

    @property
    def key(self) -> str:
        """The name, with the scale if it isn't the smallest."""
        return self.name if self.scale == "tiny" else f"{self.name}-{self.scale}"

    @property
    def trials(self) -> "Study | None":
        """The study that tunes the learning rates: every rate of every arm that is tried, on seeds of its own."""
        if self.tuning is None:
            return None
        arms = tuple(
            replace(arm, name=trial_name(arm.name, rate), config=merge(arm.config, _rate(rate)), baseline=None)
            for arm in self.arms
            for rate in self.tuning.rates
            if arm.rate is not None and arm.trial
        )
        return replace(
            self,
            name=f"{self.name}-tuning",
            arms=arms,
            baseline=arms[0].name,
            comparisons=(),
            controls=(),
            exploratory=(),
            seeds=self.tuning.seeds,
            tuning=None,
        )

    def best_rates(self, scores: Mapping[tuple[str, float], float]) -> dict[str, float]:
        """Of each group of arms with one learning rate, the rate with the best mean score, the lowest of equal ones.

        Args:
            scores: by arm and rate.
        """
        assert self.tuning is not None
        groups: dict[str, list[str]] = {}
        for arm in self.arms:
            if arm.rate is not None and arm.trial:
                groups.setdefault(arm.rate, []).append(arm.name)
        return {
            group: max(self.tuning.rates, key=lambda rate: (fmean(scores[name, rate] for name in names), -rate))
            for group, names in groups.items()
        }

    def with_rates(self, rates: Mapping[str, float]) -> "Study":
        """The study with the learning rates of its arms set, by the name of their ``rate``."""
        arms = (
            arm if arm.rate is None else replace(arm, config=merge(arm.config, _rate(rates[arm.rate])))
            for arm in self.arms
        )
        return replace(self, arms=tuple(arms))

    def cell(self, arm: Arm, seed: int, smoke: bool = False) -> Cell:
        config = merge(self.base, arm.config)
        untrained = config["trainer"]["max_epochs"] == 0
        if smoke:
            config = merge(config, self.smoke)
        if untrained:
            config = merge(config, {"trainer": {"max_epochs": 0}})
        made = {stage.name: stage.at(seed, smoke) for stage in arm.stages}
        config = filled(config, {name: preparation.folder for name, preparation in made.items()})
        config = merge(config, {"seed_everything": seed})
        return Cell(self.name, arm.name, seed, config, tuple(made.values()), arm.frozen)

    def find(self, arm: str, seed: int, digest: str, smoke: bool) -> Cell | None:
        """The cell of that arm and seed, if the hash is that of the study as it is now, not of an earlier one."""
        cells = (self.cell(each, seed, smoke) for each in self.arms if each.name == arm)
        return next((cell for cell in cells if cell.hash == digest), None)

    def cells(self, seeds: Sequence[int] | None = None, smoke: bool = False) -> list[Cell]:
        """The grid, seed by seed: an interrupted sweep leaves all arms with the same seeds."""
        return [self.cell(arm, seed, smoke) for seed in (self.seeds if seeds is None else seeds) for arm in self.arms]


def trial_name(arm: str, rate: float) -> str:
    """The name of the arm that tries a learning rate."""
    return f"{arm} at {rate:g}"


def _rate(rate: float) -> Config:
    return {"model": {"init_args": {"learning_rate": rate}}}


def _digest(x: Any) -> str:
    return hashlib.sha256(json.dumps(x, sort_keys=True).encode()).hexdigest()[:12]
