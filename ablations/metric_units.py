"""The units in which differences of a metric are reported, and the smallest difference that matters in each."""

import math

from ablations.metric_names import MEMORY, NOISE

POINTS, FACTOR, MEBIBYTES = "points", "factor", "MiB"
DEFAULT_MATTERS = {POINTS: 2.0, FACTOR: 1.2, MEBIBYTES: 50.0}  # where a comparison names no other


def unit(metric: str) -> str:
    """Of differences: percentage points, MiB, or a factor where the metric is a logarithm."""
    return FACTOR if metric.startswith(NOISE) else MEBIBYTES if metric == MEMORY else POINTS


def scaled(x: float, metric: str) -> float:
    """A difference, as metrics are recorded, as a number in its unit."""
    return math.exp(x) if unit(metric) == FACTOR else 100 * x if unit(metric) == POINTS else x


def recorded(x: float, metric: str) -> float:
    """The difference whose number in its unit is x: the inverse of :func:`scaled`."""
    return math.log(x) if unit(metric) == FACTOR else x / 100 if unit(metric) == POINTS else x


def neutral(metric: str) -> float:
    """No difference, in the metric's unit: 0, or a factor of 1."""
    return scaled(0.0, metric)


def matters_fault(matters: float, metric: str) -> str:
    """Why a number can't be the smallest difference that matters; empty if it can."""
    if neutral(metric) < matters < math.inf:
        return ""
    least = f"a factor above {neutral(metric):g}" if unit(metric) == FACTOR else f"more than 0 {unit(metric)}"
    return f"the smallest difference that matters is {least}, not {matters:g}"
