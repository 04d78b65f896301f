"""Placements of one reward: equal sums, one update with the full return, and what reward-to-go makes of them."""

import functools

import pytest
import torch

from lit_rl.algorithms import PPO
from lit_rl.exact.certificate import Claim, certify, examine, random_policy
from lit_rl.exact.formulas import UNBIASED, by_position
from lit_rl.exact.tree import grow
from lit_rl.functional import placement
from lit_rl.rollouts import response_mask
from lit_rl.tasks import Additive

TASK = Additive(3, 3)


@pytest.fixture
def table():
    torch.manual_seed(0)
    mask = response_mask(torch.tensor([6, 1, 4]), 6)
    mask[0, 2:4] = False  # somebody else's turn
    return torch.rand(3).double(), torch.rand(3, 6).double(), mask


def place(name, total, weights, mask):
    return {
        "last": lambda: placement.last(total, mask),
        "uniform": lambda: placement.uniform(total, mask),
        "causal": lambda: placement.causal(weights, total, mask),
        "weighted": lambda: placement.weighted(total, weights, mask, beta=0.3),
        "shuffled": lambda: placement.shuffled(
            placement.causal(weights, total, mask), mask, torch.Generator().manual_seed(0)
        ),
        "potential": lambda: placement.potential(total, weights, mask),
    }[name]()


NAMES = ["last", "uniform", "causal", "weighted", "shuffled", "potential"]


@pytest.mark.parametrize("name", NAMES)
def test_sums_are_kept_and_nothing_is_paid_outside_the_mask(table, name):
    total, weights, mask = table
    rewards = place(name, total, weights, mask)
    assert torch.allclose(rewards.sum(1), total, rtol=0, atol=1e-15) and (rewards[~mask] == 0).all()


def test_shuffling_moves_the_same_rewards(table):
    total, weights, mask = table
    rewards = placement.causal(weights, total, mask)
    moved = placement.shuffled(rewards, mask, torch.Generator().manual_seed(0))
    for row, there in zip(range(3), mask, strict=True):
        assert torch.allclose(moved[row][there].sort().values, rewards[row][there].sort().values)
    assert not torch.allclose(moved, rewards)


def test_attention_shares_are_relative_and_nothing_attended_to_leaves_it_at_the_end(table):
    total, weights, mask = table
    rewards = placement.weighted(total, weights, mask)
    assert torch.allclose(rewards, placement.weighted(total, 7 * weights, mask))
    assert torch.allclose(rewards[0, 0] / rewards[0, 1], weights[0, 0] / weights[0, 1])
    assert torch.equal(placement.weighted(total, 0 * weights, mask), placement.last(total, mask))


class Placed(PPO):
    """PPO whose reward is paid elsewhere in the response."""

    def __init__(self, where: str, **kwargs):
        super().__init__(**kwargs)
        self.where = where

    def token_rewards(self, rollouts, rows):
        rewards, mask, ids = rollouts.rewards, rollouts.mask, rollouts.response_ids
        if self.where == "uniform":
            placed = placement.uniform(rewards, mask)
        elif self.where == "causal":
            placed = placement.causal(TASK.token_rewards[torch.arange(3), ids], rewards, mask)
        else:
            before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
            placed = placement.potential(rewards, (before * torch.tensor([1.0, 0.7, 2.0])).sin().double(), mask)
        return placed - placement.last(rewards, mask)


@pytest.mark.parametrize("where", ["uniform", "causal", "potential"])
def test_with_the_full_return_every_placement_is_the_scalar_update(where):
    """The same on each response, not only on average."""
    tree = grow(random_policy(TASK), TASK)
    weighted = []
    for make in (PPO, functools.partial(Placed, where, weighting="full")):
        rollouts = tree.rollouts(torch.arange(len(tree.ids)))
        make(policy=tree.policy, max_new_tokens=3, reference=False).prepare(rollouts, 100)
        weighted.append(rollouts.advantages)
    assert torch.allclose(*weighted, rtol=0, atol=1e-15) and weighted[0].abs().max() > 0.1


@pytest.mark.parametrize(
    "where, expected",
    [
        ("causal", UNBIASED),
        ("potential", UNBIASED),
        ("uniform", by_position("sum_t (1 - (t-1)/T) g_t", [1.0, 2 / 3, 1 / 3])),
    ],
)
def test_with_reward_to_go_what_knows_the_future_is_biased(where, expected):
    assert certify(Claim(where, functools.partial(Placed, where), TASK, expected)).holds


def test_token_rewards_paid_at_once_are_less_noisy():
    noise = {where: examine(Claim(where, functools.partial(Placed, where), TASK))[1].trace_cov for where in ("causal",)}
    assert noise["causal"] < examine(Claim("last", PPO, TASK))[1].trace_cov
