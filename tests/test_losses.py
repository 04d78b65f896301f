"""Losses against autograd on exactly enumerated policies."""

import pytest
import torch

from lit_rl.functional.losses import clipped_fraction, kl_loss, policy_gradient_loss, row_denominator
from lit_rl.rollouts import response_mask

LENGTHS = torch.tensor([3, 5, 1, 4])
MASK = response_mask(LENGTHS, 5)


def draw(seed: int) -> torch.Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_on_policy_gradient_is_the_score_function_clipped_or_not(clip):
    """At ratio 1, d loss / d logprob of a token is -A_t / (N d_i), and 0 outside the mask."""
    logprobs, advantages = draw(0).requires_grad_(), draw(1)
    denominator = row_denominator(MASK, "sequence_mean", None, 1.0).double()
    loss = policy_gradient_loss(logprobs, logprobs.detach(), advantages, MASK, denominator, clip, clip)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    torch.testing.assert_close(gradient, torch.where(MASK, -advantages / (4 * LENGTHS[:, None]), 0.0))


def test_clipping_stops_a_token_only_where_it_would_go_further():
    old, advantages = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    logprobs = torch.tensor([[1.5, 0.5, 1.5, 0.5]]).log().requires_grad_()
    mask = torch.ones(1, 4, dtype=torch.bool)
    loss = policy_gradient_loss(logprobs, old, advantages, mask, torch.ones(1), 0.2, 0.28)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert (gradient != 0).tolist() == [[False, True, True, False]]
    assert clipped_fraction(logprobs.detach(), old, advantages, mask, 0.2, 0.28) == 0.5
    assert clipped_fraction(logprobs.detach(), old, advantages, mask, None, None) == 0


def test_each_side_has_its_own_range():
    """Below by a tenth, above by a half: of ratios that only one of the two ranges holds, each is told by its own."""
    ratios, advantages = torch.tensor([[1.3, 1.6, 0.8, 0.95]]), torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    logprobs, mask = ratios.log().requires_grad_(), torch.ones(1, 4, dtype=torch.bool)
    loss = policy_gradient_loss(logprobs, torch.zeros(1, 4), advantages, mask, torch.ones(1), 0.1, 0.5)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    torch.testing.assert_close(gradient, torch.tensor([[-1.3, 0.0, 0.0, 0.95]]))
    assert clipped_fraction(logprobs.detach(), torch.zeros(1, 4), advantages, mask, 0.1, 0.5) == 0.5
    (gradient,) = torch.autograd.grad(
        policy_gradient_loss(logprobs, torch.zeros(1, 4), advantages, mask, torch.ones(1), None, 0.5), logprobs
    )
    assert (gradient != 0).tolist() == [[True, False, True, True]]


@pytest.mark.parametrize("kind, direction", [("k2", "reverse"), ("k3", "forward")])
def test_expected_kl_loss_gradient_is_that_of_the_exact_kl(kind, direction):
    """E under pi of the loss's gradient, by enumerating a vocabulary of 5: k2 is KL(pi||ref)'s, k3 KL(ref||pi)'s."""
    logits = draw(2)[0].requires_grad_()
    reference = draw(3)[0].log_softmax(-1)
    policy = logits.log_softmax(-1)
    exact = (
        (policy.exp() * (policy - reference)).sum()
        if direction == "reverse"
        else (reference.exp() * (reference - policy)).sum()
    )
    (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
    one = torch.ones(1, 1, dtype=torch.bool)
    total = torch.zeros_like(expected)
    for token, probability in enumerate(policy.exp().detach()):
        loss = kl_loss(policy[None, token : token + 1], reference[None, token : token + 1], one, torch.ones(1), kind)
        total += probability * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(total, expected)


def test_denominators():
    """Each normaliser by what it must leave unchanged when responses are all ones."""
    per_row = lambda name, **kw: MASK.sum(1) / row_denominator(MASK, name, kw.get("window"), kw.get("constant", 1.0))
    assert per_row("row_sum").tolist() == LENGTHS.tolist()
    assert per_row("sequence_mean").tolist() == [1.0] * 4
    assert float(per_row("token_mean").mean()) == pytest.approx(1)
    assert float(per_row("token_mean", window=6.5).mean()) == pytest.approx(float(LENGTHS.float().mean()) / 6.5)
    assert per_row("constant", constant=10.0).tolist() == pytest.approx([0.3, 0.5, 0.1, 0.4])
