"""What a study is: arms, seeds and planned comparisons, written down before the first run.

Data and their checks alone; :mod:`ablations.grid` makes cells of them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from ablations.arms import Arm, Choice, Stage, Trial, Tuning, seeds_fault
from ablations.config import Config, nested
from ablations.metric_units import DEFAULT_MATTERS, matters_fault, unit
from lit_rl.ranges import Positive, Share, fault

__all__ = ["Arm", "Choice", "Comparison", "Fault", "Prediction", "Reading", "Stage", "Study", "Trial", "Tuning"]

SMOKE: Config = {
    "data.prompts_per_iteration": 4,
    "data.rows_per_microbatch": 4,
    "data.eval_prompts": 8,
    "trainer.max_epochs": 2,
    "trainer.check_val_every_n_epoch": 1,
}


SCALES = "tiny", "mid", "small"  # in the order of their models


class Reading(NamedTuple):
    """What its authors read from a study's outcomes, for as long as a rerun has the same.

    Attributes:
        text: three sentences that answer the question to a stranger; they open the report.
        outcomes: of the planned comparisons, then of the exploratory ones: ``above``, ``below``, ``equal`` or
            ``unresolved``.
    """

    text: str
    outcomes: tuple[str, ...]


Prediction = Literal["above", "below", "equal", "not above", ""]


class Comparison(NamedTuple):
    """A question to two arms, or to the means over several arms each, with what theory says beforehand.

    Attributes:
        arms, against: names; the value of several is the mean over them, by seed.
        predicted: of ``arms``, relative to ``against``.
        because: the reason.
        name: in tables; empty takes the arms'.
        metric: empty takes the study's primary one.
        matters: the smallest difference that would matter, in the unit in which the metric's differences are reported:
            points, MiB or, above 1, a factor. None takes the unit's, of :mod:`ablations.metric_units`.
    """

    arms: tuple[str, ...]
    against: tuple[str, ...]
    predicted: Prediction = ""
    because: str = ""
    name: str = ""
    metric: str = ""
    matters: float | None = None

    @classmethod
    def between(
        cls,
        arm: str,
        against: str,
        predicted: Prediction = "",
        because: str = "",
        name: str = "",
        metric: str = "",
        tasks: Iterable[str] = (),
        matters: float | None = None,
    ) -> "Comparison":
        """Of two arms or, in the mean over tasks, of the arms whose names are a task's with that behind it."""
        tasks = tuple(tasks)
        arms, others = (tuple(f"{task} {each}" for task in tasks) or (each,) for each in (arm, against))
        if len(tasks) > 1 and not name:
            name = f"{arm} against {against}, {', '.join(tasks[:-1])} and {tasks[-1]}"
        return cls(arms, others, predicted, because, name, metric, matters)

    def __str__(self) -> str:
        return self.name or f"{' + '.join(self.arms)} against {' + '.join(self.against)}"


class Fault(NamedTuple):
    """A fault that is provoked on purpose, and what should tell of it.

    Attributes:
        name: the same for all tasks.
        warning: of :mod:`lit_rl.functional.warning_rules`.
        arm: the runs that have it.
        twin: healthy runs that differ in nothing else, paired by seed.
    """

    name: str
    warning: str
    arm: str
    twin: str


@dataclass(frozen=True)
class Study:
    """A question, and the grid of runs that answers it.

    Attributes:
        question: what the study asks.
        source: where the question comes from.
        baseline: the arm that gains are measured against, unless an arm names another; the first one if empty.
        primary_metric: decides the question; of ``StudyResults.value``.
        comparisons: planned ones, at most six, whose p are adjusted together.
        controls: comparisons that show the machinery to be sound, each with a prediction.
        exploratory: comparisons that were not planned, made after the runs that they follow up.
        beside: further metrics, whose differences stand beside the planned ones.
        base: settings shared by all arms, by names as on the command line or nested.
        seeds: when none are given.
        tuning: of learning rates and allocations; None where they stand in the settings.
        hours: the budget on two cores.
        cpus_per_cell, gpus_per_cell: what a cell takes of its node in a Ray cluster, whole ones or parts; of GPUs at
            most one.
        faults: provoked on purpose, to judge the warnings by; the cells keep what the diagnostics logged.
        calibration: seeds on which the limits of warnings are set; their cells are in no other number.
        kappas: costs of a trained token, in generated ones, at which the noise of frozen arms is compared.
        measured_kappa: the least and the largest that were measured with models like these; a band in the figure.
        scale: ``tiny``, ``mid`` or ``small``.
        smoke: settings merged last with ``--smoke``, to try the study out in seconds.
        notes: limits of the answer, for the report.
        trials: finished ones, once the study is tuned.
        command: what runs it, behind ``python -m ablations``; empty for a study of the package.
        reading: of the outcomes that were found.
        exactly: what the exact rows came to, in words, for the report's answer.
        exact: import path of a function of ``smoke`` that computes rows without training, before the cells run: a
            list of dictionaries, see :mod:`ablations.exact`. With ``smoke`` they are some of the same rows.
    """

    name: str
    question: str
    source: str = ""
    arms: tuple[Arm, ...] = ()
    baseline: str = ""
    primary_metric: str = "test/accuracy_sampled"
    comparisons: tuple[Comparison, ...] = ()
    controls: tuple[Comparison, ...] = ()
    exploratory: tuple[Comparison, ...] = ()
    beside: tuple[str, ...] = ()
    base: Config = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning: Tuning | None = None
    hours: float | None = None
    cpus_per_cell: float = 1.0
    gpus_per_cell: float = 0.0
    faults: tuple[Fault, ...] = ()
    calibration: tuple[int, ...] = ()
    kappas: tuple[float, ...] = ()
    measured_kappa: tuple[float, float] | None = None
    scale: str = "tiny"
    smoke: Config = field(default_factory=SMOKE.copy)
    notes: tuple[str, ...] = ()
    reading: Reading | None = None
    command: str = ""
    exactly: str = ""
    exact: str = ""
    trials: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        for name in ("base", "smoke"):
            object.__setattr__(self, name, nested(getattr(self, name)))
        if not self.baseline and self.arms:
            object.__setattr__(self, "baseline", self.arms[0].name)
        for reason in _faults(self):
            raise ValueError(f"study {self.name}: {reason}")

    @property
    def deciding_metric(self) -> str:
        """What chooses among trials."""
        return (self.tuning and self.tuning.metric) or self.primary_metric

    @property
    def arm_names(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.arms)

    def metric_of(self, comparison: Comparison) -> str:
        return comparison.metric or self.primary_metric

    def matters_of(self, comparison: Comparison) -> float:
        """The smallest difference that would matter, in the metric's unit."""
        return DEFAULT_MATTERS[unit(self.metric_of(comparison))] if comparison.matters is None else comparison.matters

    def own_seeds(self, smoke: bool) -> tuple[int, ...]:
        """Those that are run and reported where none are given: all or, with ``--smoke``, one."""
        return self.seeds[:1] if smoke else self.seeds

    def seeds_to_run(self, smoke: bool) -> tuple[int, ...]:
        """Those and, of the ones for calibration, all or, with ``--smoke``, one."""
        return (*self.own_seeds(smoke), *(self.calibration[:1] if smoke else self.calibration))

    def baseline_of(self, arm: str) -> str:
        return self.arm(arm).baseline or self.baseline

    def arm(self, name: str) -> Arm:
        return next(each for each in self.arms if each.name == name)

    def label(self, smoke: bool) -> str:
        """Name of the MLflow experiment and of the results folder."""
        return f"{self.key}-smoke" if smoke else self.key

    @property
    def how(self) -> str:
        """What runs it, behind ``python -m ablations``."""
        return self.command or f"run {self.name}" + ("" if self.scale == "tiny" else f" --scale {self.scale}")

    @property
    def key(self) -> str:
        """The name, with the scale if it isn't the smallest."""
        return self.name if self.scale == "tiny" else f"{self.name}-{self.scale}"


def _faults(study: Study) -> Iterator[str]:
    if not re.fullmatch(r"[\w.-]+", study.name):
        yield "its name is that of a folder, too: letters, digits, - and _"
    if not study.arms:
        yield "it has no arms"
    twice = [name for name, count in Counter(study.arm_names).items() if count > 1]
    if twice:
        yield f"two arms are called {twice[0]}"
    pairs = (*study.comparisons, *study.controls, *study.exploratory)
    compared = [name for pair in pairs for name in pair.arms + pair.against]
    faulty = [name for each in study.faults for name in (each.arm, each.twin)]
    named = [*map(study.baseline_of, study.arm_names), *compared, *faulty]
    if unknown := [name for name in named if name not in study.arm_names]:
        yield f"it compares with {unknown[0]}, which is none of its arms"
    for pair in pairs:
        if wrong := matters_fault(study.matters_of(pair), study.metric_of(pair)):
            yield f"{pair}: {wrong}"
        if pair.predicted not in get_args(Prediction):
            known = ", ".join(filter(None, get_args(Prediction)))
            yield f"{pair}: predicted is {pair.predicted!r}, which is none of {known}"
    if unsaid := [pair for pair in study.controls if not pair.predicted]:
        yield f"its control {unsaid[0]} has no prediction"
    if len(study.comparisons) > 6:
        yield f"{len(study.comparisons)} planned comparisons, more than six"
    if study.scale not in SCALES:
        yield f"its scale is {study.scale!r}, which is none of {', '.join(SCALES)}"
    if wrong := seeds_fault(study.seeds):
        yield f"its seeds {wrong}"
    if study.calibration and (wrong := seeds_fault(study.calibration)):
        yield f"its seeds for calibration {wrong}"
    if both := set(study.calibration) & {*study.seeds, *(study.tuning.seeds if study.tuning else ())}:
        yield f"seed {min(both)} is for calibration, and used otherwise, too; take others for calibration"
    if study.calibration and not study.faults:
        yield "it has seeds for calibration, but no faults, so that nothing is calibrated"
    for name, hint in {"cpus_per_cell": Positive, "gpus_per_cell": Share}.items():
        if reason := fault(getattr(study, name), hint):
            yield f"its {name} is {getattr(study, name)!r}: it {reason}"
    yield from _faults_of_trials(study)


def _faults_of_trials(study: Study) -> Iterator[str]:
    tuning, tried = study.tuning, {arm.tuned_as: arm for arm in reversed(study.arms) if arm.tried}
    for arm in study.arms:
        if arm.tuned_as is None and arm.allocations:
            yield f"arm {arm.name} has allocations, but no tuned_as, so that nothing chooses one"
        if arm.tuned_as is not None and tuning is None:
            yield f"arm {arm.name} is tuned_as {arm.tuned_as}, but there is no tuning=Tuning(rates, seeds)"
        if arm.tuned_as is not None and arm.tuned_as not in tried:
            yield f"arm {arm.name} is tuned_as {arm.tuned_as}, which no arm tries; give one that name and trial=True"
        others = tried.get(arm.tuned_as, arm)
        if list(arm.allocations) != list(others.allocations) and (arm.trial or arm.allocations):
            yield f"arms {others.name} and {arm.name}, both tuned_as {arm.tuned_as}, have different allocations"
    if tuning is not None and (unknown := set(tuning.rates_by_task) - {arm.task for arm in study.arms if arm.tried}):
        yield f"its tuning has rates for {min(unknown)}, which is the task of no arm that is tried"
    if tuning is not None and not tried:
        yield "it has a tuning, but nothing to try; give arms tuned_as"
    if tuning is not None and (twice := set(tuning.seeds) & set(study.seeds)):
        yield f"seed {min(twice)} is both of the trials and of the study; take others for the trials"
