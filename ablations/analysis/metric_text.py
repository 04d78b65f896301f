"""How the metrics of comparisons and their differences are written in a report."""

import math

from ablations.analysis.statistics import Interval
from ablations.metric_names import KAPPA, MEMORY, NOISE, OVER_SECONDS, OVER_TOKENS, RECOVERED, RESPONSE, SECOND, TOKEN

COSTS = {RESPONSE: "response", TOKEN: "generated token", SECOND: "second"}


def name(metric: str) -> str:
    """For a sentence."""
    for prefix, over in ((OVER_TOKENS, "generated tokens"), (OVER_SECONDS, "seconds of training")):
        if metric.startswith(prefix):
            return f"`{metric.removeprefix(prefix)}` (its mean over the budget of {over})"
    if metric.startswith(RECOVERED):
        positions = ", ".join(str(int(t) + 1) for t in metric.removeprefix(RECOVERED).split("+"))
        return f"the part of the exact gradient that is recovered at the positions {positions}"
    if metric.startswith(NOISE):
        return f"the gradient's noise tr Σ {_at_cost(metric.removeprefix(NOISE))}"
    return f"`{metric}`"


def difference(interval: Interval, metric: str) -> str:
    """In the metric's unit, with its interval if there is one: points, MiB, or a factor where it is a logarithm."""
    mean, bounds = _text(interval.mean, metric), limits(interval, metric)
    flat = interval.low == interval.high
    return mean if flat or not bounds else f"{mean} {bounds}"


def limits(interval: Interval, metric: str) -> str:
    """Of a difference; empty without bounds."""
    if interval.low != interval.low:
        return ""
    return f"[{_text(interval.low, metric)}, {_text(interval.high, metric)}]"


def unit(metric: str) -> str:
    """Of differences, for a sentence."""
    return "as factors" if metric.startswith(NOISE) else "in MiB" if metric == MEMORY else "in points"


def directions(metric: str) -> tuple[str, str]:
    """What above and below are called, to begin a sentence with."""
    over = {OVER_TOKENS: "generated tokens", OVER_SECONDS: "seconds of training"}
    for prefix, axis in over.items():
        if metric.startswith(prefix):
            more, less = (f"{which} accuracy on average over the budget of {axis}" for which in ("Higher", "Lower"))
            return more, less
    if metric.startswith(NOISE):
        cost = _at_cost(metric.removeprefix(NOISE))
        return f"More gradient noise {cost}", f"Less gradient noise {cost}"
    return ("More memory", "Less memory") if metric == MEMORY else (f"Higher `{metric}`", f"Lower `{metric}`")


def _text(x: float, metric: str) -> str:
    if metric.startswith(NOISE):
        return f"x{math.exp(x):.2f}"
    return f"{x:+.0f} MiB" if metric == MEMORY else f"{100 * x:+.1f}"


def _at_cost(cost: str) -> str:
    if cost.startswith(KAPPA):
        return f"when a trained token costs {cost.removeprefix(KAPPA)} generated ones and as much is spent"
    return f"per {COSTS[cost]}"
