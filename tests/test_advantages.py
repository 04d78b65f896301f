"""Properties of response-level advantages."""

import pytest
import torch

from lit_rl.functional.advantages import group_relative, leave_one_out, zero_advantage_share

GROUP = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])


@pytest.fixture
def returns():
    return torch.randn(len(GROUP), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_leave_one_out_baseline_does_not_depend_on_the_own_return(returns):
    """Whatever response i earned more, its advantage rises by exactly that, and the others' fall by 1 / (G - 1)."""
    before = leave_one_out(returns, GROUP)
    for i in range(len(GROUP)):
        changed = returns.clone()
        changed[i] += 5
        change = leave_one_out(changed, GROUP) - before
        siblings = (GROUP == GROUP[i]) & (torch.arange(len(GROUP)) != i)
        assert change[i] == pytest.approx(5)
        torch.testing.assert_close(change[siblings], torch.full_like(change[siblings], -5 / int(siblings.sum())))
        assert (change[GROUP != GROUP[i]] == 0).all()


def test_group_mean_is_leave_one_out_shrunk(returns):
    size = torch.bincount(GROUP)[GROUP]
    torch.testing.assert_close(group_relative(returns, GROUP), leave_one_out(returns, GROUP) * (1 - 1 / size))


def test_std_scaling_gives_each_group_unit_spread_whatever_its_scale(returns):
    for scale in (1e-3, 1.0, 1e6):
        scaled = group_relative(returns * scale, GROUP, scale_by_std=True)
        for group in range(3):
            assert scaled[GROUP == group].mean() == pytest.approx(0, abs=1e-9)
            assert scaled[GROUP == group].std() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e-8])
def test_a_group_without_spread_gets_exactly_zero(value):
    returns = torch.tensor([value] * 3 + [0.0, 1.0] + [value] * 4)
    for advantages in (
        leave_one_out(returns, GROUP),
        group_relative(returns, GROUP),
        group_relative(returns, GROUP, scale_by_std=True),
    ):
        assert (advantages[GROUP != 1] == 0).all() and (advantages[GROUP == 1] != 0).all()


def test_row_order_does_not_matter(returns):
    order = torch.randperm(len(GROUP), generator=torch.Generator().manual_seed(1))
    for function in (leave_one_out, group_relative):
        torch.testing.assert_close(function(returns[order], GROUP[order]), function(returns, GROUP)[order])


def test_zero_advantage_share_counts_groups_not_rows():
    advantages = torch.zeros(len(GROUP), 4)
    assert zero_advantage_share(advantages, GROUP) == 1
    advantages[6, 2] = -0.5  # one token of the largest group
    assert float(zero_advantage_share(advantages, GROUP)) == pytest.approx(2 / 3)
