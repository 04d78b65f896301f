"""Gradient noise of the frozen arms: all measured on the same policies, at what a response, a token, a second costs."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

from ablations.results import SECONDS, Result, Results
from ablations.statistics import Interval, jackknife_interval, mean_interval
from ablations.study import merge

COSTS = ("response", "token", "second")
COLUMNS = ("arm", "seeds", "signal", *(f"noise, a {cost}" for cost in COSTS))
CAPTION = (
    "At frozen policies, the same for all arms of a task ({baseline} is 1, smaller is better): tr Σ / (signal² ‖∇J‖²), "
    "the noise of a gradient that is as long as the exact one, when as many trained responses, generated tokens or "
    "seconds are spent on it. Signal: g · ∇J / ‖∇J‖², 1 for an unbiased estimator of that scale; where its interval "
    "reaches 0 the noise is unresolved. 95% intervals: t, and "
    "of the noise jackknife over seeds, paired with {baseline}'s, on the logarithm. Seconds are of this machine, two "
    "cells at a time."
)


class Noise(NamedTuple):
    """Of one cell's policy: per group, with what a group costs.

    Attributes:
        trace: tr Sigma / |grad J|^2.
        signal: g . grad J / |grad J|^2.
        cost: of a group, by ``COSTS``.
    """

    trace: float
    signal: float
    cost: dict[str, float]


def arms(results: Results) -> list[str]:
    """The frozen arms with measured gradients, if those of their baselines are."""
    found = [arm.name for arm in results.study.arms if arm.frozen and measured(results, arm.name)]
    return [arm for arm in found if baseline(results, arm) in found]


def baseline(results: Results, arm: str) -> str:
    """The frozen arm of the same algorithm as the arm's baseline."""
    return f"{results.study.baseline_of(arm)}, frozen"


def groups(results: Results) -> dict[str, list[str]]:
    """The frozen arms by the frozen arm that they are compared with."""
    found: dict[str, list[str]] = {}
    for arm in arms(results):
        found.setdefault(baseline(results, arm), []).append(arm)
    return found


def measured(results: Results, arm: str) -> dict[int, Noise]:
    """By seed."""
    return {cell.seed: noise for cell in results.of(arm) if (noise := _noise(results, cell)) is not None}


def signal(found: Mapping[int, Noise]) -> Interval:
    """Mean over seeds."""
    return mean_interval([noise.signal for noise in found.values()])


def relative(found: Mapping[int, Noise], other: Mapping[int, Noise], cost: str) -> Interval:
    """The noise at equal cost as a factor of another arm's; all NaN where the signal is not told from 0."""
    if not signal(found).low > 0:
        return Interval(math.nan, math.nan, math.nan)

    def log_ratio(seeds: Sequence[int]) -> float:
        return _log_noise(found, seeds, cost) - _log_noise(other, seeds, cost)

    return Interval(*map(math.exp, jackknife_interval(log_ratio, sorted(found.keys() & other.keys()))))


def table(results: Results, names: Sequence[str]) -> list[list[str]]:
    """The rows below ``COLUMNS``."""
    rows = []
    for arm in names:
        found, other = measured(results, arm), measured(results, baseline(results, arm))
        own = signal(found)
        ratios = [_factor(relative(found, other, cost)) if arm != baseline(results, arm) else "1" for cost in COSTS]
        rows.append([results.label(arm), str(len(found)), f"{own.mean:.2f} [{own.low:.2f}, {own.high:.2f}]", *ratios])
    return rows


def _noise(results: Results, cell: Result) -> Noise | None:
    """None where fewer than two iterations behind critic pretraining were measured."""
    config = merge(results.study.base, results.study.arm(cell.arm).config)
    arguments, prompts = config["model"]["init_args"], config["data"]["prompts_per_iteration"]
    waits = arguments.get("critic_pretraining", 0)
    steps = [step for step in cell.curves.get("gradient/trace_cov", {}) if step > waits]
    if len(steps) < 2:
        return None
    tokens, seconds = cell.axis("tokens"), cell.curves[SECONDS]
    spent = [(tokens[b] - tokens[a], seconds[b] - seconds[a]) for a, b in pairwise(sorted(steps)) if b == a + 1]
    return Noise(
        fmean(cell.curves["gradient/trace_cov"][step] / cell.curves["credit/norm_sq"][step] for step in steps),
        fmean(cell.curves["credit/signal"][step] for step in steps),
        {
            "response": float(arguments.get("samples", 1)),
            "token": fmean(t for t, _ in spent) / prompts,
            "second": median(s for _, s in spent) / prompts,
        },
    )


def _log_noise(found: Mapping[int, Noise], seeds: Sequence[int], cost: str) -> float:
    trace, own, spent = (
        fmean(f(found[seed]) for seed in seeds)
        for f in (lambda noise: noise.trace, lambda noise: noise.signal, lambda noise: noise.cost[cost])
    )
    return math.log(trace * spent / own**2)


def _factor(interval: Interval) -> str:
    if interval.mean != interval.mean:
        return "unresolved"
    bounds = "" if interval.low != interval.low else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.mean:.2f}{bounds}"
