"""How the metrics of comparisons and their differences are written in a report."""

from ablations.analysis.statistics import Interval
from ablations.metric_names import (
    END,
    FLAGGED,
    KAPPA,
    MEMORY,
    NOISE,
    OVER_SECONDS,
    OVER_TOKENS,
    RECOVERED,
    RESPONSE,
    SECOND,
    TOKEN,
)
from ablations.metric_units import FACTOR, scaled, unit

COSTS = {RESPONSE: "response", TOKEN: "generated token", SECOND: "second"}
SPLITS = {"test": "test", "val": "validation"}
ACCURACIES = {"accuracy": "greedy", "accuracy_sampled": "sampled", "accuracy_flexible": "flexible"}


def name(metric: str) -> str:
    """For a sentence, in words."""
    for prefix, over in ((OVER_TOKENS, "generated tokens"), (OVER_SECONDS, "seconds of training")):
        if metric.startswith(prefix):
            return f"{_plain(metric.removeprefix(prefix))}, averaged over the budget of {over}"
    if metric.startswith(END):
        return f"{_plain(metric.removeprefix(END))} at the end of the budget"
    if metric.startswith(RECOVERED):
        positions = ", ".join(str(int(t) + 1) for t in metric.removeprefix(RECOVERED).split("+"))
        return f"recovered part of the exact gradient at positions {positions}"
    if metric.startswith(FLAGGED):
        return "share of runs that draw the warning"
    if metric.startswith(NOISE):
        return f"gradient noise tr Σ {_at_cost(metric.removeprefix(NOISE))}"
    return "peak memory" if metric == MEMORY else _plain(metric)


def difference(interval: Interval, metric: str) -> str:
    """In the metric's unit, with its interval if there is one: points, MiB, or a factor where it is a logarithm.

    Empty where it is not known.
    """
    if interval.mean != interval.mean:
        return ""
    mean, bounds = _text(interval.mean, metric), limits(interval, metric)
    flat = interval.low == interval.high
    return mean if flat or not bounds else f"{mean} {bounds}"


def limits(interval: Interval, metric: str) -> str:
    """Of a difference; empty without bounds."""
    if interval.low != interval.low:
        return ""
    return f"[{_text(interval.low, metric)}, {_text(interval.high, metric)}]"


def matters(least: float, metric: str) -> str:
    """The smallest difference that matters, a number in the metric's unit, with that unit."""
    return f"x{least:g}" if unit(metric) == FACTOR else f"{least:g} {unit(metric)}"


def number(x: float, metric: str) -> str:
    """A difference in its unit, as a bare number; empty if it isn't known."""
    digits = 2 if metric.startswith(NOISE) else 0 if metric == MEMORY else 1
    return "" if x != x else f"{scaled(x, metric):.{digits}f}"


def directions(metric: str) -> tuple[str, str]:
    """What above and below are called, to begin a sentence with."""
    more, less = ("More", "Less") if metric.startswith(NOISE) or metric == MEMORY else ("Higher", "Lower")
    return f"{more} {name(metric)}", f"{less} {name(metric)}"


def _text(x: float, metric: str) -> str:
    if metric.startswith(NOISE):
        return f"x{number(x, metric)}"
    return f"{x:+.0f} MiB" if metric == MEMORY else f"{100 * x:+.1f}"


def _plain(metric: str) -> str:
    """Of a metric's name in MLflow."""
    split, _, rest = metric.partition("/")
    return f"{ACCURACIES[rest]} {SPLITS[split]} accuracy" if split in SPLITS and rest in ACCURACIES else f"`{metric}`"


def _at_cost(cost: str) -> str:
    if cost.startswith(KAPPA):
        return f"at equal cost, if training a token costs {cost.removeprefix(KAPPA)} times generating one"
    return f"per {COSTS[cost]}"
