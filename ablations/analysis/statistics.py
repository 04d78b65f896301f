"""Intervals, tests and power over training seeds, which are the independent unit."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

RESAMPLES = 9_999


class Interval(NamedTuple):
    """A mean with its confidence interval; the bounds are NaN where one value is all there is."""

    mean: float
    low: float
    high: float


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> list[float]:
    """a - b over the seeds that they have in common."""
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


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
    return mean_interval(paired(a, b), confidence)


def bca_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and bias-corrected accelerated bootstrap interval (Efron 1987), from 9,999 resamples of a fixed stream.

    It covers too little with few values: of normal ones about .89 instead of .95 with ten (measured in the tests).
    """
    if len(values) < 2 or min(values) == max(values):
        mean = sum(values) / len(values) if values else math.nan
        bound = mean if len(values) > 1 else math.nan
        return Interval(mean, bound, bound)
    import numpy as np
    from scipy import stats

    found = stats.bootstrap(
        (np.asarray(values),), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(float(np.mean(values)), float(found.low), float(found.high))


def rate_interval(count: int, n: int, confidence: float = 0.95) -> Interval:
    """The share count / n with its exact binomial interval (Clopper and Pearson 1934); all NaN if n is 0."""
    if not n:
        return Interval(math.nan, math.nan, math.nan)
    from scipy import stats

    found = stats.binomtest(count, n).proportion_ci(confidence)
    return Interval(count / n, float(found.low), float(found.high))


def auc_interval(positive: Sequence[float], negative: Sequence[float], confidence: float = 0.95) -> Interval:
    """The chance that a positive value is above a negative one, ties counted half: the area under the ROC curve.

    The interval is Newcombe's (2006, method 5), which is no point where the two do not overlap. It takes the values as
    independent. All NaN where there is no value on a side.
    """
    m, n = len(positive), len(negative)
    if not m or not n:
        return Interval(math.nan, math.nan, math.nan)
    from scipy import optimize, stats

    area = float(stats.mannwhitneyu(positive, negative).statistic) / (m * n)
    z = float(stats.norm.ppf((1 + confidence) / 2))

    def beyond(x: float) -> float:
        """How far the estimate is from x, squared, less what chance explains if x is the truth."""
        spread = 1 + ((m + n) / 2 - 1) * ((1 - x) / (2 - x) + x / (1 + x))
        return (area - x) ** 2 - z**2 * x * (1 - x) * spread / (m * n)

    inside = min(max(area, 1e-9), 1 - 1e-9)  # at 0 and 1 it is 0, too
    low = 0.0 if area == 0 else float(optimize.brentq(beyond, 0.0, inside))
    high = 1.0 if area == 1 else float(optimize.brentq(beyond, inside, 1.0))
    return Interval(area, low, high)


def jackknife_interval(statistic: Callable[[Sequence[int]], float], seeds: Sequence[int]) -> Interval:
    """A statistic of some seeds, with the t interval of Tukey's pseudo-values n f(all) - (n - 1) f(all but one).

    For smooth functions of means, such as the logarithm of a ratio of them. The mean is f(all).
    """
    n, whole = len(seeds), statistic(seeds)
    if n < 2:
        return Interval(whole, math.nan, math.nan)
    without = [statistic([other for other in seeds if other != seed]) for seed in seeds]
    interval = mean_interval([n * whole - (n - 1) * value for value in without])
    half = (interval.high - interval.low) / 2
    return Interval(whole, whole - half, whole + half)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of paired differences: the share of the 2^n sign vectors with a mean at least as far from 0.

    Valid where differences are symmetric around 0 if nothing differs, normal or not. Exact, and at least 2^(1 - n), of
    up to 40, in halves (scipy's, vector by vector, takes seconds from 20 on); of more scipy's on random vectors. NaN
    for no differences.
    """
    import numpy as np
    from scipy import stats

    d = np.asarray(differences, dtype=float)
    n = len(d)
    if not n:
        return math.nan
    far = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # sums in another order round otherwise
    if far <= 0:
        return 1.0
    if n > 40:
        options: Any = {"permutation_type": "samples", "n_resamples": RESAMPLES, "rng": 0}
        return float(stats.permutation_test((d,), np.mean, **options).pvalue)
    one, other = _signed_sums(d[: n // 2]), np.sort(_signed_sums(d[n // 2 :]))
    above = len(other) - np.searchsorted(other, far - one)  # as many are below -far
    return float(2 * above.sum() / 2**n)


def below_p(differences: Sequence[float], bound: float) -> float:
    """One-sided p of the t test that the mean is below a bound; NaN of fewer than two differences.

    Of differences without spread it is the limit: 0 if they are below, otherwise 1.
    """
    n = len(differences)
    if n < 2:
        return math.nan
    if min(differences) == max(differences):
        return 0.0 if differences[0] < bound else 1.0
    import numpy as np
    from scipy import stats

    error = float(np.std(differences, ddof=1)) / math.sqrt(n)
    return float(stats.t.cdf((float(np.mean(differences)) - bound) / error, n - 1))


def equivalence_p(differences: Sequence[float], margin: float) -> float:
    """p of the two one-sided t tests (Schuirmann 1987) that the mean is between -margin and margin: the larger one.

    It is below .05 where the 90% t interval lies between them; NaN of fewer than two differences.
    """
    return max(below_p(differences, margin), below_p([-d for d in differences], margin))


def _signed_sums(x: Any) -> Any:
    """The sums of numbers [n] with each of the 2^n vectors of signs."""
    import numpy as np

    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p by Holm's step-down (1979): rejecting those below alpha keeps the chance of any false one below it.

    NaN, a comparison that could not be made, stays NaN and is not counted.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    adjusted, most = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        most = max(most, min(1.0, (len(order) - rank) * p))
        adjusted[i] = most
    return adjusted


def power(difference: float, sd: float, seeds: int, alpha: float = 0.05) -> float:
    """The chance that the two-sided paired t test sees a true mean difference, ``sd`` being that of the differences."""
    from scipy import stats

    shift = abs(difference) / sd * math.sqrt(seeds)
    limit = stats.t.ppf(1 - alpha / 2, seeds - 1)
    return float(stats.nct.sf(limit, seeds - 1, shift) + stats.nct.cdf(-limit, seeds - 1, shift))


def seeds_needed(difference: float, sd: float, wanted: float = 0.8, alpha: float = 0.05, most: int = 10_000) -> int:
    """The fewest seeds, at least 2 and at most ``most``, with which :func:`power` reaches ``wanted``."""
    low, high = 1, 2
    while high < most and power(difference, sd, high, alpha) < wanted:
        low, high = high, min(most, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, sd, middle, alpha) >= wanted else (middle, high)
    return high


class Waiting(NamedTuple):
    """How long seeds took to reach something, those that never did right-censored at the end of their run.

    Attributes:
        reached, seeds: counts.
        median: of the Kaplan-Meier estimate; NaN where half of the seeds never got there.
        mean: of the times, each cut at the first end of a run that did not get there (the restricted mean).
    """

    reached: int
    seeds: int
    median: float
    mean: float


def first_reached(curve: Mapping[float, float], level: float) -> float | None:
    """Where a curve, value by place, first is at ``level`` or above; None if nowhere."""
    return next((place for place, value in sorted(curve.items()) if value >= level), None)


def waiting(reached: Sequence[float], censored: Sequence[float]) -> Waiting:
    """Kaplan-Meier over the seeds.

    Args:
        reached: the times of those that got there.
        censored: the ends of the runs of those that did not.
    """
    import numpy as np
    from scipy import stats

    n = len(reached) + len(censored)
    if not reached:
        return Waiting(0, n, math.nan, math.nan)
    sample = stats.CensoredData(uncensored=reached, right=censored)
    survival = stats.ecdf(sample).sf
    below = survival.quantiles[survival.probabilities <= 0.5]
    end = min(censored, default=max(reached))
    times = np.concatenate([[0.0], np.minimum(survival.quantiles, end), [end]])
    heights = np.concatenate([[1.0], survival.probabilities])
    mean = float((np.diff(times) * heights).sum())
    return Waiting(len(reached), n, float(below[0]) if len(below) else math.nan, mean)
