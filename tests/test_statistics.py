"""Intervals and tests against scipy, and by simulation against what they promise."""

import math
from functools import cache

import numpy as np
import pytest
from scipy import stats

from ablations.analysis import statistics
from ablations.analysis.statistics import (
    bca_interval,
    below_p,
    equivalence_p,
    first_reached,
    holm,
    mean_interval,
    paired,
    paired_interval,
    power,
    seeds_needed,
    sign_flip_p,
    waiting,
)

STUDIES, COMPARISONS = 2_000, 6
DRAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(4, size=shape),
    "lumpy": lambda rng, shape: rng.integers(-2, 3, size=shape).astype(float),  # accuracies of few problems tie
}


@cache
def simulated(kind: str, seeds: int) -> np.ndarray:
    """Paired differences of studies in which nothing differs: [studies, comparisons, seeds]. The comparisons of a study
    share an arm, as planned ones do."""
    rng = np.random.default_rng([seeds, *kind.encode()])
    arms = DRAWS[kind](rng, (STUDIES, COMPARISONS + 1, seeds))
    return arms[:, 1:] - arms[:, :1]


def within(share: float, promised: float) -> bool:
    """Within four standard errors of 2,000 coin tosses."""
    return abs(share - promised) < 4 * math.sqrt(promised * (1 - promised) / STUDIES)


@pytest.mark.parametrize("seeds", [8, 10])
@pytest.mark.parametrize("kind", DRAWS)
def test_coverage_of_the_t_interval(kind, seeds):
    intervals = [mean_interval(d) for d in simulated(kind, seeds)[:, 0].tolist()]
    assert within(np.mean([i.low <= 0 <= i.high for i in intervals]), 0.95)


@pytest.mark.parametrize("seeds, least, most", [(8, 0.86, 0.91), (10, 0.87, 0.92)])
def test_coverage_of_the_bootstrap_is_what_its_docstring_says(monkeypatch, seeds, least, most):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)
    intervals = [bca_interval(d) for d in simulated("normal", seeds)[:, 0].tolist()]
    assert least < np.mean([i.low <= 0 <= i.high for i in intervals]) < most


@pytest.mark.parametrize("seeds", [8, 10])
@pytest.mark.parametrize("kind", DRAWS)
def test_false_positives_of_the_sign_flip_test_and_of_holm(kind, seeds):
    found = np.array([[sign_flip_p(d) for d in study] for study in simulated(kind, seeds).tolist()])
    alone = np.mean(found[:, 0] <= 0.05)
    family = np.mean([min(holm(row)) <= 0.05 for row in found.tolist()])
    error = 4 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert alone < 0.05 + error and family < 0.05 + error
    uncorrected = np.mean(found.min(1) <= 0.05)
    assert uncorrected > 0.05 + error  # or the check above would have nothing to catch


def test_the_sign_flip_test_is_scipys_permutation_test():
    rng = np.random.default_rng(0)
    for n in (2, 5, 9):
        d = rng.normal(0.5, size=n)
        known = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=math.inf)
        assert sign_flip_p(d.tolist()) == pytest.approx(known.pvalue)
    assert sign_flip_p([0.1] * 8) == 2 / 2**8 and sign_flip_p([0.0] * 8) == 1
    assert math.isnan(sign_flip_p([]))


@pytest.mark.parametrize("n, tolerance", [(1, 1e-12), (23, 1e-12), (40, 1e-12), (41, 0.02), (90, 0.02)])
def test_of_differences_of_one_size_it_is_the_sign_test(n, tolerance):
    for ups in range(n // 2, min(n, n // 2 + 12) + 1):
        found = sign_flip_p([0.3] * ups + [-0.3] * (n - ups))
        assert found == pytest.approx(stats.binomtest(ups, n).pvalue, abs=tolerance)


def test_holm_of_a_known_table():
    # Holm (1979) on the p values .01, .02, .03, .04: each at least as large as the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    adjusted = holm([0.01, math.nan])
    assert adjusted[0] == pytest.approx(0.01) and math.isnan(adjusted[1])


def test_bootstrap_is_scipys_and_of_a_fixed_stream():
    values = np.random.default_rng(1).normal(size=9).tolist()
    known = stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=1).confidence_interval
    found = bca_interval(values)
    assert found == bca_interval(values) and found.mean == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(known.low, abs=0.05) and found.high == pytest.approx(known.high, abs=0.05)
    assert bca_interval([2.0, 2.0]) == (2, 2, 2) and math.isnan(bca_interval([1.0]).low)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_are_those_of_the_t_test(confidence):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 8), rng.normal(0, 1, 8)
    known = stats.ttest_rel(a, b).confidence_interval(confidence)
    found = paired_interval(dict(enumerate(a)), dict(enumerate(b)), confidence)
    assert found == pytest.approx((np.mean(a - b), known.low, known.high))
    assert math.isnan(mean_interval([]).mean) and math.isnan(mean_interval([1.0]).low)


@pytest.mark.parametrize("n", [2, 8, 24])
def test_equivalence_is_a_90_percent_interval_within_the_margin(n):
    rng = np.random.default_rng(n)
    decided = []
    for _ in range(200):
        d, margin = rng.normal(rng.normal(0, 0.3), 1, n), rng.uniform(0.1, 2)
        upper = stats.ttest_1samp(d, margin, alternative="less").pvalue
        lower = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
        assert below_p(d.tolist(), margin) == pytest.approx(upper)
        assert equivalence_p(d.tolist(), margin) == pytest.approx(max(upper, lower))
        interval = mean_interval(d.tolist(), 0.9)
        decided.append(equivalence_p(d.tolist(), margin) < 0.05)
        assert decided[-1] == (-margin < interval.low and interval.high < margin)
    assert n == 2 or 0 < np.mean(decided) < 1


@pytest.mark.parametrize("kind", DRAWS)
def test_a_difference_of_the_margin_is_called_equal_in_a_twentieth_of_studies(kind):
    """The level of the test, and its power where nothing differs."""
    d = simulated(kind, 10)[:, 0]
    for margin in (1.5, 3.0):
        for sign in (-1, 1):
            called = np.mean([equivalence_p(x, margin) < 0.05 for x in (d + sign * margin).tolist()])
            assert called < 0.05 + 4 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert np.mean([equivalence_p(x, 3.0) < 0.05 for x in d.tolist()]) > 0.9
    twice = np.mean([equivalence_p(x, 1.5) < 0.05 for x in (d + 3.0).tolist()])
    assert twice < 0.01


def test_equivalence_without_spread():
    assert equivalence_p([0.0] * 3, 0.02) == equivalence_p([-0.01] * 3, 0.02) == 0
    assert equivalence_p([0.03] * 3, 0.02) == equivalence_p([-0.03] * 3, 0.02) == 1
    assert below_p([-0.03] * 3, 0.02) == 0 and below_p([0.03] * 3, 0.02) == 1
    assert math.isnan(equivalence_p([0.0], 0.02)) and math.isnan(equivalence_p([], 0.02))


def test_pairs_are_matched_by_seed():
    assert paired({0: 1.0, 1: 5.0, 3: 2.0}, {1: 1.0, 3: 1.0, 4: 9.0}) == [4.0, 1.0]


def test_power_is_the_share_of_simulated_studies_that_find_the_difference():
    rng = np.random.default_rng(2)
    for difference, n in ((0.5, 10), (1.0, 8), (-1.0, 8)):
        d = rng.normal(difference, 1, size=(STUDIES, n))
        assert within(np.mean(stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05), power(difference, 1, n))
    assert power(0, 1, 8) == pytest.approx(0.05)


def test_seeds_needed_of_known_tables():
    # Cohen (1988): a two-sided paired t test at .05 with power .8 takes 34 pairs at d = .5, 15 at d = .8
    assert (seeds_needed(0.5, 1), seeds_needed(0.8, 1)) == (34, 15)
    assert seeds_needed(100, 1) == 2 and seeds_needed(1e-9, 1) == 10_000


def test_waiting_is_kaplan_meier():
    nobody_censored = waiting([1.0, 2.0, 3.0, 6.0], [])
    assert nobody_censored == (4, 4, 2.0, 3.0)
    # after the first of 4 the survival is 3/4; the censored one leaves without an event
    some = waiting([2.0, 4.0], [4.0, 10.0])
    assert (some.reached, some.seeds, some.median) == (2, 4, 4.0)
    assert some.mean == pytest.approx(2 * 1 + 2 * 0.75)
    nobody = waiting([], [5.0, 5.0])
    assert (nobody.reached, nobody.seeds) == (0, 2) and math.isnan(nobody.median)


def test_a_level_is_reached_where_the_curve_first_is_above_it():
    curve = {30.0: 0.9, 10.0: 0.2, 20.0: 0.6}
    assert first_reached(curve, 0.5) == 20 and first_reached(curve, 0.1) == 10 and first_reached(curve, 0.95) is None
