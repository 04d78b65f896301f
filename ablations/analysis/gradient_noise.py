"""Gradient noise of the frozen arms: all measured on the same policies, per response, token and second."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from ablations.analysis.statistics import Interval, jackknife_interval, mean_interval, paired_interval
from ablations.analysis.tables import Column, Table, Value
from ablations.metric_names import RESPONSE, SECOND, TOKEN
from ablations.records.cell_noise import Noise, noise_of
from ablations.records.study_results import StudyResults

HEADING = "Gradient noise"
COSTS = (RESPONSE, TOKEN, SECOND)
SAYS = "has each arm's gradient noise at frozen policies, relative to {baseline}'s, per response, token and second."
GUIDE = (
    "At frozen policies, the same for all arms of a task; {baseline} is 1, smaller is better. Noise is {noise}, when "
    "as many trained responses, generated tokens or seconds are spent on it. {how} Seconds are of this machine, two "
    "cells at a time."
)
SCALED = (
    "tr Σ / (signal² ‖∇J‖²), that of a gradient as long as the exact one; the signal g · ∇J / ‖∇J‖² is 1 for an "
    "unbiased estimator of that scale, and where its interval reaches 0 the noise is left empty (unresolved)"
)
UNSCALED = "tr Σ, for these estimators are unbiased and of one scale"
BY_MEANS = "Intervals are 95%: t for the signal; for noise, jackknife over paired seeds, on the logarithm."
BY_LOGARITHMS = "Numbers are geometric means over paired seeds with 95% t intervals on the logarithm."


def table(results: StudyResults) -> Table:
    """Of all frozen arms, at each cost; without rows where there are none."""
    rows: list[list[Value]] = []
    for first, names in groups(results).items():
        other = measured(results, first)
        for arm in names:
            found = measured(results, arm)
            ratios = [relative(found, other, cost) if arm != first else Interval(1, 1, 1) for cost in COSTS]
            rows.append([results.study.arm(arm).task, arm, len(found), signal(found), *ratios])
    columns = [
        *map(Column, ("task", "arm", "seeds")),
        *(Column(name, "", ".2f", True) for name in ("signal", *(f"noise per {cost}" for cost in COSTS))),
    ]
    known = any(noise.signal == noise.signal for arm in arms(results) for noise in measured(results, arm).values())
    noise, how = (SCALED, BY_MEANS) if known else (UNSCALED, BY_LOGARITHMS)
    name = baselines(results)
    guide = GUIDE.format(baseline=name, noise=noise, how=how)
    return Table("gradient_noise", HEADING, SAYS.format(baseline=name), columns, rows, guide)


def baselines(results: StudyResults) -> str:
    """What the frozen arms are compared with, in words."""
    return " or ".join(dict.fromkeys(results.label(baseline(results, arm)) for arm in arms(results)))


def arms(results: StudyResults) -> list[str]:
    """The frozen arms with measured gradients, if those of their baselines are."""
    found = [arm.name for arm in results.study.arms if arm.frozen and measured(results, arm.name)]
    return [arm for arm in found if baseline(results, arm) in found]


def baseline(results: StudyResults, arm: str) -> str:
    """What the arm is compared with: its baseline, or the frozen arm of that algorithm."""
    name = results.study.baseline_of(arm)
    return name if results.study.arm(name).frozen else f"{name}, frozen"


def groups(results: StudyResults) -> dict[str, list[str]]:
    """The frozen arms by the frozen arm that they are compared with."""
    found: dict[str, list[str]] = {}
    for arm in arms(results):
        found.setdefault(baseline(results, arm), []).append(arm)
    return found


def measured(results: StudyResults, arm: str) -> dict[int, Noise]:
    """By seed."""
    config = results.config(arm)
    return {cell.seed: noise for cell in results.of(arm) if (noise := noise_of(cell, config)) is not None}


def signal(found: Mapping[int, Noise]) -> Interval:
    """Mean over seeds; all NaN where it was not measured."""
    known = [noise.signal for noise in found.values() if noise.signal == noise.signal]
    return mean_interval(known) if known else Interval(math.nan, math.nan, math.nan)


def relative(found: Mapping[int, Noise], other: Mapping[int, Noise], cost: str) -> Interval:
    """The noise at equal cost as a factor of another arm's: the geometric mean over seeds or, where the signal was
    measured, the ratio of means, for a seed's own signal may be next to 0; all NaN where it is not told from 0."""
    if signal(found).low <= 0:
        return Interval(math.nan, math.nan, math.nan)

    if all(noise.signal != noise.signal for noise in (*found.values(), *other.values())):  # nothing to divide by
        own, others = ({seed: noise.log(cost) for seed, noise in each.items()} for each in (found, other))
        return Interval(*map(math.exp, paired_interval(own, others)))

    def log_ratio(seeds: Sequence[int]) -> float:
        return _log_noise(found, seeds, cost) - _log_noise(other, seeds, cost)

    return Interval(*map(math.exp, jackknife_interval(log_ratio, sorted(found.keys() & other.keys()))))


def _log_noise(found: Mapping[int, Noise], seeds: Sequence[int], cost: str) -> float:
    trace, spent = (fmean(f(found[seed]) for seed in seeds) for f in (lambda n: n.trace, lambda n: n.cost(cost)))
    return math.log(trace * spent / fmean(found[seed].signal for seed in seeds) ** 2)


def factor(interval: Interval) -> str:
    """With its bounds, if it has any."""
    if interval.mean != interval.mean:
        return "unresolved"
    bounds = "" if interval.low != interval.low else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.mean:.2f}{bounds}"
