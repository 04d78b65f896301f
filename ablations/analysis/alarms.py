"""Do the warnings warn: how often faulty runs draw them, how often healthy ones do, and how long before harm.

A run is harmed from the first validation on from which its accuracy stays ``FALL`` below its best so far or, where it
has a healthy twin, below the twin's. It takes two validations, so that one alone is no harm.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ablations.analysis.statistics import Interval, auc_interval, mean_interval, rate_interval
from ablations.records.cell_result import CellResult
from ablations.records.study_results import StudyResults
from ablations.study import Fault
from lit_rl.functional.warning_rules import SIGNS, as_limit, badness, is_raised

ACCURACY = "val/accuracy_sampled"
RULES_OF_THUMB = {  # the limits that were, before any were set on runs
    "explained_variance": 0.0,
    "value_bias": 0.5,
    "cut_error": 0.35,
    "group_error": 0.35,
    "stuck": 0.8,
    "trace_ratio": 2.0,
    "entropy_ratio": 0.3,
    "distinct": 0.5,
    "clip_fraction": 0.3,
    "kl_slope": 1.0,
    "length_ratio": 2.0,
}
THUMB, CALIBRATED = "rules of thumb", "set on other seeds"
FALL = 0.1
MOST_FALSE = 0.05  # share of healthy runs that a calibrated limit may flag
ALL = {"stuck": "zero_advantage", "entropy_ratio": "entropy_ratio_all", "distinct": "distinct_all"}
Curve = Mapping[int, float]


def harmed(curve: Curve, twin: Curve | None = None) -> int | None:
    """The iteration of the first validation from which on a run is harmed; None if it never is.

    Args:
        curve: its accuracy by iteration.
        twin: its healthy twin's.
    """
    steps, low, best = sorted(curve), [], -math.inf
    for step in steps:
        level = max(best, (twin or {}).get(step, -math.inf))
        low.append(curve[step] < level - FALL)
        best = max(best, curve[step])
    healthy = max((i for i, fallen in enumerate(low) if not fallen), default=-1)  # the last one
    return steps[healthy + 1] if healthy + 2 < len(steps) else None


@dataclass(frozen=True)
class Rule:
    """A warning as it is raised: by enough signs at once beyond their limits.

    Attributes:
        warning: its name; title: how tables call the rule.
        limits: by metric.
    """

    warning: str
    title: str
    limits: Mapping[str, float]

    def first(self, cell: CellResult) -> float:
        """The first iteration in which it is raised; infinite if in none."""
        curves = [(name, limit, cell.diagnostics.get(name, {})) for name, limit in self.limits.items()]
        signs: dict[int, int] = {}
        for name, limit, curve in curves:
            for step, value in curve.items():
                signs[step] = signs.get(step, 0) + (badness(_limited(name), value) > badness(_limited(name), limit))
        return min((step for step, n in signs.items() if is_raised(self.warning, n)), default=math.inf)

    def measured(self, cell: CellResult) -> bool:
        return any(cell.diagnostics.get(name) for name in self.limits)


class Pair(NamedTuple):
    """A faulty run and its healthy twin of the same seed.

    Attributes:
        harm: when the faulty run is harmed; None if never.
        end: of the window in which both are looked at: the harm, or the end.
        twin_falls: whether the healthy run falls by itself.
    """

    fault: Fault
    faulty: CellResult
    twin: CellResult
    harm: int | None
    end: float
    twin_falls: bool


class Judged(NamedTuple):
    """What a rule did on some pairs.

    Attributes:
        detected: share of faulty runs that drew the warning; false: of healthy twins.
        in_time: share of the harmed runs that drew it before, or in, the iteration of the validation that shows it.
        lead: iterations from the first warning in time to the harm, over the runs that have both.
    """

    pairs: int
    detected: Interval
    false: Interval
    harmed: int
    in_time: Interval
    lead: Interval
    leads: tuple[float, ...]
    twins_fallen: int

    @property
    def precision(self) -> float:
        """The share of right warnings where every second run is faulty."""
        drawn = self.detected.mean + self.false.mean
        return self.detected.mean / drawn if drawn else math.nan


def pairs(cells: Iterable[CellResult], faults: Iterable[Fault]) -> list[Pair]:
    """Of all faults and seeds that have both runs."""
    by = {(cell.arm, cell.seed): cell for cell in cells}
    found = []
    for fault in faults:
        for arm, seed in sorted(by):
            if arm != fault.arm or (fault.twin, seed) not in by:
                continue
            faulty, twin = by[arm, seed], by[fault.twin, seed]
            own, other = (each.curves.get(ACCURACY, {}) for each in (faulty, twin))
            harm = harmed(own, other) if own else None
            falls = bool(other) and harmed(other) is not None
            found.append(Pair(fault, faulty, twin, harm, math.inf if harm is None else harm, falls))
    return found


def rules(limits: Mapping[str, float] = RULES_OF_THUMB, title: str = THUMB) -> list[Rule]:
    """Every warning with these limits."""
    return [Rule(name, title, {sign: limits[sign] for sign in signs}) for name, signs in SIGNS.items()]


def unconditional() -> list[Rule]:
    """The warnings that leave solved prompts out, as they would be with all prompts."""
    found = []
    for rule in rules(title=f"{THUMB}, all prompts"):
        if any(name in ALL for name in rule.limits):
            found.append(Rule(rule.warning, rule.title, {ALL.get(k, k): v for k, v in rule.limits.items()}))
    return found


def judged(rule: Rule, found: Sequence[Pair]) -> Judged:
    """The rule on those pairs on whose runs it is measured."""
    found = [pair for pair in found if rule.measured(pair.faulty) and rule.measured(pair.twin)]
    firsts = [rule.first(pair.faulty) for pair in found]
    drawn = [math.isfinite(first) for first in firsts]
    false = [math.isfinite(rule.first(pair.twin)) for pair in found]
    harms = [(pair.harm, first) for pair, first in zip(found, firsts, strict=True) if pair.harm is not None]
    leads = tuple(float(harm - first) for harm, first in harms if first <= harm)
    return Judged(
        len(found),
        rate_interval(sum(drawn), len(found)),
        rate_interval(sum(false), len(found)),
        len(harms),
        rate_interval(len(leads), len(harms)),
        mean_interval(leads),
        leads,
        sum(pair.twin_falls for pair in found),
    )


def extreme(cell: CellResult, metric: str, end: float) -> float:
    """The worst value up to an iteration, as :func:`badness`; minus infinity where none was measured."""
    curve = cell.diagnostics.get(metric, {})
    return max((badness(_limited(metric), v) for step, v in curve.items() if step <= end), default=-math.inf)


def extremes(metric: str, found: Sequence[Pair]) -> tuple[list[float], list[float]]:
    """Of faulty runs before harm and of their twins in the same window, where the metric is measured at all."""
    kept = [pair for pair in found if pair.faulty.diagnostics.get(metric) and pair.twin.diagnostics.get(metric)]
    faulty = [extreme(pair.faulty, metric, pair.end) for pair in kept]
    return faulty, [extreme(pair.twin, metric, pair.end) for pair in kept]


def area(metric: str, found: Sequence[Pair]) -> Interval:
    """Under the metric's ROC curve."""
    return auc_interval(*extremes(metric, found))


def roc(positive: Sequence[float], negative: Sequence[float]) -> list[tuple[float, float]]:
    """(false-alarm rate, detection rate) of all thresholds, from the strictest to the loosest."""
    thresholds = sorted({*positive, *negative}, reverse=True)
    return [*((_above(negative, at), _above(positive, at)) for at in thresholds), (1.0, 1.0)]


def calibrated(found: Sequence[Pair]) -> dict[str, float]:
    """Limits by the rule: a rule of thumb that flags at most ``MOST_FALSE`` of the twins of its warning's faults stays.

    Another one moves to the :func:`threshold`. Metrics that were never measured there have none.

    Twins are looked at to their end, faulty runs up to their harm. No limit gets stricter than the rule of thumb, for
    runs of a small study vary less than others.
    """
    limits = {}
    for warning, metrics in SIGNS.items():
        meant = [pair for pair in found if pair.fault.warning == warning]
        for metric in metrics:
            healthy = [extreme(p.twin, metric, math.inf) for p in meant if p.twin.diagnostics.get(metric)]
            faulty = [extreme(p.faulty, metric, p.end) for p in meant if p.faulty.diagnostics.get(metric)]
            if healthy and faulty:
                limits[metric] = RULES_OF_THUMB[metric]
                if _above(healthy, badness(metric, RULES_OF_THUMB[metric])) > MOST_FALSE:
                    limits[metric] = as_limit(metric, threshold(faulty, healthy))
    return limits


def threshold(positive: Sequence[float], negative: Sequence[float], most: float = MOST_FALSE) -> float:
    """Of the thresholds that flag at most ``most`` of the healthy runs, the one that detects most; of equal ones that
    with the fewest false alarms. What is above it is flagged. It lies in the middle between two values that were seen.
    """
    seen = sorted({x for x in (*positive, *negative) if math.isfinite(x)})
    candidates = [*((low + high) / 2 for low, high in pairwise(seen)), seen[-1]]  # nothing is above the last one
    rates = {at: (_above(positive, at), _above(negative, at)) for at in candidates}
    return max((at for at in candidates if rates[at][1] <= most), key=lambda at: (rates[at][0], -rates[at][1]))


def _above(values: Sequence[float], at: float) -> float:
    return sum(x > at for x in values) / len(values)


def _limited(metric: str) -> str:
    """The metric whose limit, and direction, it has."""
    return next((name for name, other in ALL.items() if other == metric), metric)


def of(results: StudyResults) -> list[Pair]:
    """The pairs that are reported."""
    return pairs(results.cells, results.study.faults)


def for_limits(results: StudyResults) -> list[Pair]:
    """Those that limits are set on, of other seeds."""
    return pairs(results.calibration, results.study.faults)
