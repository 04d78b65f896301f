"""When a warning is raised: which metrics are its signs, their limits, and how many signs it takes.

docs/diagnostics.md defines the metrics. Nothing here imports torch, so that reports, too, can judge logged metrics.
"""

import math
from collections.abc import Mapping

SIGNS = {
    "critic_initialisation": ("explained_variance", "value_bias"),
    "insufficient_sampling": ("cut_error", "group_error"),
    "poor_baseline": ("stuck", "trace_ratio"),
    "kl_collapse": ("entropy_ratio", "distinct", "clip_fraction", "kl_slope", "length_ratio"),
}
AT_ONCE = {"kl_collapse": 2}  # signs that it takes; elsewhere one
LIMITS = {  # as the study failure_signatures set them (tables/limits.csv), to two digits
    "explained_variance": -0.17,
    "value_bias": 4.2,
    "cut_error": 0.47,
    "group_error": 0.35,
    "stuck": 0.8,
    "trace_ratio": 2.0,
    "entropy_ratio": 0.3,
    "distinct": 0.36,
    "clip_fraction": 0.3,
    "kl_slope": 1.8,
    "length_ratio": 2.0,
}
LEAST = ("explained_variance", "distinct")  # limits from below
RATIOS = ("entropy_ratio", "length_ratio")  # to the start; limits of the factor by which they rise or fall


def badness(metric: str, value: float) -> float:
    """The value on a scale on which more is worse; beyond its limit is what is worse than the limit.

    Values that are limited from below change their sign, a ratio counts as much as its inverse, the others by size.
    """
    if metric in LEAST:
        return -value
    if metric in RATIOS:
        return max(value, 1 / value) if value > 0 else math.inf
    return abs(value)


def as_limit(metric: str, badness: float) -> float:
    """The limit that is as bad: the inverse of :func:`badness` for limits."""
    return -badness if metric in LEAST else 1 / badness if metric == "entropy_ratio" else badness


def beyond(metrics: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, list[str]]:
    """The signs of each warning that are worse than their limits, for the warnings of which a sign was measured."""
    found = {}
    for warning, signs in SIGNS.items():
        if measured := [each for each in signs if each in metrics]:
            found[warning] = [x for x in measured if badness(x, metrics[x]) > badness(x, limits[x])]
    return found


def is_raised(warning: str, signs: int) -> bool:
    """Whether so many signs beyond their limits at once raise it."""
    return signs >= AT_ONCE.get(warning, 1)
