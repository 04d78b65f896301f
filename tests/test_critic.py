"""Generalized advantages, the value loss, and how well values fit."""

import pytest
import torch

from lit_rl.functional.critic import gae, value_loss, whiten
from lit_rl.rollouts import response_mask

N, T = 5, 7


@pytest.fixture
def table():
    torch.manual_seed(0)
    mask = response_mask(torch.tensor([7, 1, 4, 6, 3]), T)
    return torch.randn(N, T).double() * mask, torch.randn(N, T).double() * mask, mask


def by_definition(rewards, values, decay):
    """One response, as the sum of its temporal differences."""
    following = [*values[1:], 0.0]
    differences = [r + after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [sum(decay**i * d for i, d in enumerate(differences[t:])) for t in range(len(rewards))]


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.95, 1.0])
def test_advantages_are_decayed_sums_of_temporal_differences(table, decay):
    rewards, values, mask = table
    advantages = gae(rewards, values, mask, decay)
    for row in range(N):
        there = mask[row]
        expected = by_definition(rewards[row][there].tolist(), values[row][there].tolist(), decay)
        assert advantages[row][there].tolist() == pytest.approx(expected)
        assert (advantages[row][~there] == 0).all()


def test_at_lambda_one_it_is_what_is_still_to_come_less_the_value(table):
    rewards, values, mask = table
    to_come = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(gae(rewards, values, mask, 1.0), (to_come - values) * mask)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_turns_of_somebody_else_are_passed_over(table, decay):
    """A response with gaps has the advantages of the response without them, and a gap's reward is the turn's before."""
    rewards, values, mask = table
    wide = torch.zeros(N, 2 * T).double()
    spread_rewards, spread_values = wide.clone(), wide.clone() + 9.0
    spread_rewards[:, 1::2], spread_values[:, ::2] = rewards, values  # each reward comes after its token
    spread_mask = torch.zeros(N, 2 * T, dtype=torch.bool)
    spread_mask[:, ::2] = mask
    found = gae(spread_rewards, spread_values, spread_mask, decay)
    assert torch.allclose(found[:, ::2], gae(rewards, values, mask, decay))
    assert (found[:, 1::2] == 0).all()


def test_single_precision_values_do_not_round_rewards():
    rewards, values = torch.full((1, 2), 1 / 3, dtype=torch.float64), torch.zeros(1, 2)
    assert gae(rewards, values, torch.ones(1, 2, dtype=torch.bool), 1.0).tolist() == [[2 / 3, 1 / 3]]


def test_value_loss_without_clipping_is_half_the_mean_squared_error(table):
    targets, values, _ = table
    everything = torch.ones(N, T, dtype=torch.bool)
    loss = value_loss(values, values, targets, everything, torch.full((N,), float(T)), None)
    assert float(loss) == pytest.approx(float(torch.nn.functional.mse_loss(values, targets)) / 2)


def test_clipping_stops_values_that_have_moved_far_towards_their_target():
    old = torch.zeros(1, 4)
    values = torch.tensor([[0.1, 0.3, -0.3, 0.3]], requires_grad=True)
    targets = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    loss = value_loss(values, old, targets, torch.ones(1, 4, dtype=torch.bool), torch.ones(1), 0.2)
    [gradient] = torch.autograd.grad(loss, values)
    # near: goes on; far and still not there: stops; far on the wrong side, or beyond the target: comes back
    assert gradient[0, 0] < 0 and gradient[0, 1] == 0 and gradient[0, 2] < 0 and gradient[0, 3] > 0


def test_whitened_advantages_have_mean_zero_and_deviation_one(table):
    x, _, mask = table
    white = whiten(x, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-12) and float(white[mask].std()) == pytest.approx(1)
    assert (white[~mask] == 0).all() and (whiten(torch.ones_like(x), mask) == 0).all()


@pytest.mark.parametrize("value", [0.1, -0.3, 1e-8, 1e8])
@pytest.mark.parametrize("rows", [3, 50_000])
def test_equal_numbers_whitened_are_zero_whatever_their_mean_is_rounded_to(value, rows):
    x = torch.full((rows, 7), value)
    assert (whiten(x, torch.ones_like(x, dtype=torch.bool)) == 0).all()
    x[0, 0] *= 1 + 1e-4
    assert whiten(x[:3], torch.ones(3, 7, dtype=torch.bool))[0, 0].abs() > 4
