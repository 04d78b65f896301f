"""The numbers behind the diagnostics, each against another way to it, and their limits."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from lit_rl.callbacks import Diagnostics
from lit_rl.errors import UsageError
from lit_rl.functional import diagnostics as f
from lit_rl.functional import warning_rules as rules


@pytest.mark.parametrize("offset", [0.0, 3.0, 300.0])
def test_agreement_is_numpys(offset):
    rng = np.random.default_rng(0)
    x = rng.normal(offset, 2, (20, 5))
    y = 0.5 * x + rng.normal(1, 1, x.shape)
    parts = [f.pair_sums(torch.tensor(x[rows]), torch.tensor(y[rows])) for rows in (slice(8), slice(8, None))]
    found = f.agreement(parts[0] + parts[1])  # as of two ranks
    x, y = x.ravel(), y.ravel()
    assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.slope == pytest.approx(np.polyfit(x, y, 1)[0]) == pytest.approx(stats.linregress(x, y).slope)
    assert found.explained_variance == pytest.approx(1 - np.var(y - x) / np.var(y))
    assert found.bias == pytest.approx((x - y).mean() / y.std()) and found.spread == pytest.approx(y.std())


def test_agreement_without_spread_is_undefined():
    flat, y = torch.full((9,), 0.1), torch.arange(9.0)
    found = f.agreement(f.pair_sums(flat, y))  # a constant explains nothing
    assert found.explained_variance == pytest.approx(0) and np.isnan(found.slope) and np.isnan(found.correlation)
    assert np.isnan(f.agreement(f.pair_sums(y, flat))).tolist() == [True, True, False, True, True]
    assert np.isnan(f.agreement(f.pair_sums(y[:0], y[:0]))).all()


def test_squared_errors_are_scipys():
    x = np.random.default_rng(1).normal(size=(7, 5))
    np.testing.assert_allclose(f.squared_errors(torch.tensor(x)), stats.sem(x, axis=1) ** 2)


@pytest.mark.parametrize("k", [2, 3, 8])
def test_corrected_reliability_is_that_of_the_whole_mean(k):
    """Of values of variance 1 seen through noise of variance 4, the mean of k has reliability 1 / (1 + 4 / k)."""
    rng = np.random.default_rng(2)
    returns = rng.normal(size=(200_000, 1)) + rng.normal(0, 2, (200_000, k))
    first, second = f.half_means(torch.tensor(returns))
    np.testing.assert_allclose(first, returns[:, : k // 2].mean(1))
    found = f.spearman_brown(float(np.corrcoef(first, second)[0, 1]), k / (k // 2))
    assert found == pytest.approx(1 / (1 + 4 / k), abs=0.01)


@pytest.mark.parametrize("g", [1, 2, 4, 6])
def test_chance_of_equal_rewards_counts_subsets_and_is_unbiased(g):
    rewards = np.random.default_rng(3).integers(0, 3, (5, 6)).astype(float)
    expected = [np.mean([len(set(some)) == 1 for some in combinations(row, g)]) for row in rewards]
    np.testing.assert_allclose(f.alike_probability(torch.tensor(rewards), g), expected)
    successes = torch.arange(7)
    estimates = f.alike_probability((torch.arange(6) < successes[:, None]).float(), g)
    for p in (0.0, 0.1, 0.5, 0.9):
        mean = float(stats.binom.pmf(successes, 6, p) @ estimates.numpy())
        assert mean == pytest.approx(p**g + (1 - p) ** g if g > 1 else 1)


def test_thirds_and_distinct_responses():
    assert f.thirds(torch.arange(6) < torch.tensor([6, 3, 1, 4])[:, None]).tolist() == [
        [0, 0, 1, 1, 2, 2],
        [0, 1, 2, -1, -1, -1],
        [0, -1, -1, -1, -1, -1],
        [0, 0, 1, 2, -1, -1],
    ]
    ids = torch.tensor([[1, 2, 9], [1, 2, 7], [1, 2, 0], [1, 2, 0], [3, 3, 3], [3, 3, 3]])
    lengths, group = torch.tensor([2, 2, 2, 3, 3, 3]), torch.tensor([0, 0, 1, 1, 2, 2])
    rows = [(int(q), tuple(row[:n].tolist())) for q, row, n in zip(group, ids, lengths, strict=True)]
    assert f.distinct_responses(ids, torch.arange(3) < lengths[:, None], group) == len(set(rows)) == 4


def test_rows_of_solved_groups():
    rewards, group = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.5, 0.5]), torch.tensor([0, 0, 1, 1, 3, 3])
    assert f.solved_rows(rewards, group, 1.0).tolist() == [True, True, False, False, False, False]
    assert f.solved_rows(rewards, group, 0.5).tolist() == [True, True, False, False, True, True]
    assert f.distinct_responses(torch.ones(0, 3), torch.ones(0, 3, dtype=torch.bool), group[:0]) == 0


def test_every_sign_has_its_limit_on_the_right_side():
    limits = Diagnostics().limits
    assert limits.keys() == {name for signs in rules.SIGNS.values() for name in signs} and limits == rules.LIMITS
    healthy = dict.fromkeys([*rules.SIGNS["critic_initialisation"], *rules.SIGNS["kl_collapse"]], 0.5)
    healthy |= {"value_bias": -0.4, "clip_fraction": 0.1, "distinct": 0.9, "length_ratio": 0.6, "cut_error": 0.2}
    sick = {"value_bias": -4.6, "clip_fraction": 0.4, "distinct": 0.3, "length_ratio": 0.4, "cut_error": 0.5}
    sick |= {"entropy_ratio": 3.5}
    assert not any(rules.beyond(healthy, limits).values())
    assert {x for signs in rules.beyond(sick, limits).values() for x in signs} == sick.keys()
    assert rules.beyond({"length_ratio": 2.1}, limits) == {"kl_collapse": ["length_ratio"]}
    assert [rules.is_raised(name, 1) for name in rules.SIGNS] == [True, True, True, False]
    for name, limit in limits.items():
        assert rules.as_limit(name, rules.badness(name, limit)) == pytest.approx(limit)


@pytest.mark.parametrize(
    "setting, value",
    [
        *[("every_n_iterations", -1), ("probe_every_n_iterations", -2), ("probe_prompts", 1), ("kl_window", 1)],
        *[("value_bias", -0.1), ("cut_error", -1.0), ("distinct", float("nan")), ("length_ratio", 0.5)],
    ],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(UsageError, match=f"^diagnostics.{setting} is {value}; "):
        Diagnostics(**{setting: value})
