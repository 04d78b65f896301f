"""Gradient noise of the frozen arms: all measured on the same policies, per response, token and second."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from ablations.analysis.statistics import Interval, jackknife_interval, mean_interval, paired_interval
from ablations.metric_names import RESPONSE, SECOND, TOKEN
from ablations.records.cell_noise import Noise, noise_of
from ablations.records.study_results import StudyResults

COSTS = (RESPONSE, TOKEN, SECOND)
COLUMNS = ("arm", "seeds", "signal", *(f"noise per {cost}" for cost in COSTS))
CAPTION = (
    "At frozen policies, the same for all arms of a task ({baseline} is 1, smaller is better): {noise} when as many "
    "trained responses, generated tokens or seconds are spent on it. {how} Seconds are of this machine, two cells at a "
    "time."
)
SCALED = (
    "tr Σ / (signal² ‖∇J‖²), the noise of a gradient that is as long as the exact one, with the signal "
    "g · ∇J / ‖∇J‖², 1 for an unbiased estimator of that scale (where its interval reaches 0 the noise is unresolved),"
)
UNSCALED = "tr Σ, of estimators that are unbiased and of one scale,"
BY_MEANS = "95% intervals: t, and of the noise jackknife over seeds, paired with {baseline}'s, on the logarithm."
BY_LOGARITHMS = "Geometric means over seeds, paired with {baseline}'s, with 95% t intervals on the logarithm."


def caption(results: StudyResults) -> str:
    first = arms(results)[0]
    known = signal(measured(results, first)).mean
    noise, how = (SCALED, BY_MEANS) if known == known else (UNSCALED, BY_LOGARITHMS)
    name = results.label(baseline(results, first))
    return CAPTION.format(baseline=name, noise=noise, how=how.format(baseline=name))


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


def table(results: StudyResults, names: Sequence[str]) -> list[list[str]]:
    """The rows below ``COLUMNS``."""
    rows = []
    for arm in names:
        found, other = measured(results, arm), measured(results, baseline(results, arm))
        own = signal(found)
        ratios = [factor(relative(found, other, cost)) if arm != baseline(results, arm) else "1" for cost in COSTS]
        said = f"{own.mean:.2f} [{own.low:.2f}, {own.high:.2f}]" if own.mean == own.mean else ""
        rows.append([results.label(arm), str(len(found)), said, *ratios])
    return rows


def _log_noise(found: Mapping[int, Noise], seeds: Sequence[int], cost: str) -> float:
    trace, spent = (fmean(f(found[seed]) for seed in seeds) for f in (lambda n: n.trace, lambda n: n.cost(cost)))
    return math.log(trace * spent / fmean(found[seed].signal for seed in seeds) ** 2)


def factor(interval: Interval) -> str:
    """With its bounds, if it has any."""
    if interval.mean != interval.mean:
        return "unresolved"
    bounds = "" if interval.low != interval.low else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.mean:.2f}{bounds}"
