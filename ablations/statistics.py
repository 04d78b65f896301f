"""Intervals over training seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean with its confidence interval; the bounds are NaN where one value is all there is."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and Student t interval of independent values; all NaN if there is none."""
    n = len(values)
    if n < 2:
        return Interval(values[0] if n else math.nan, math.nan, math.nan)
    import numpy as np  # slow to import, as is scipy
    from scipy import stats

    mean = float(np.mean(values))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def paired_interval(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> Interval:
    """Mean and Student t interval of a - b, given by seed, over the seeds they have in common."""
    return mean_interval([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())], confidence)
