"""Where an engine samples: how far its probabilities are from the trainer's, and what corrects for that."""

from functools import partial

import pytest
import torch

from lit_rl.algorithms import (
    CISPO,
    GRPO,
    GSPO,
    P3O,
    PPO,
    REINFORCE,
    RLOO,
    RLZVP,
    OnlineDPO,
    OptimalBaseline,
    REINFORCEPlusPlus,
    Supervised,
    TRePO,
)
from lit_rl.errors import UsageError
from lit_rl.exact.certificate import Claim, certify, random_policy
from lit_rl.exact.formulas import UNBIASED
from lit_rl.exact.second_step import earlier_policy
from lit_rl.functional.cuts import Stride
from lit_rl.functional.sampler_gap import gap
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import Additive

TASK = Additive(3, 3, eos=True)
CAP = 1.3
WEIGHING = {
    "REINFORCE": partial(REINFORCE, samples=2),
    "RLOO": partial(RLOO, samples=2),
    "OptimalBaseline": partial(OptimalBaseline, samples=2),
    "GRPO": partial(GRPO, samples=2),
    "CISPO": partial(CISPO, samples=2),
    "RLZVP": partial(RLZVP, samples=2),
    "REINFORCEPlusPlus": partial(REINFORCEPlusPlus, samples=2),
    "PPO": partial(PPO, samples=2, critic=None, whiten=True),
    "TRePO": partial(TRePO, samples=2, cuts=Stride(1)),
    "TRePO, reuse": partial(TRePO, samples=2, cuts=Stride(1), reuse=True),
}


def prepared(make, sampler_logprobs=None, **settings):
    """Prepared rollouts of eight prompts, and the gradient of the loss by the log-probabilities of trained rows."""
    policy = random_policy(TASK)
    algorithm = make(policy=policy, max_new_tokens=3, reference=False, **settings)
    rollouts = LocalSampler().sample(policy, [[0]] * 8, algorithm.plan, [(3, i) for i in range(8)])
    rollouts.rewards = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(2)).double()
    rollouts.examples = [TASK.prompts("train")[0]] * 8
    rollouts.sampler_logprobs = sampler_logprobs
    algorithm.prepare(rollouts, 64)
    trained = rollouts.select(rollouts.trained)
    logprobs = trained.old_logprobs.clone().requires_grad_()
    return rollouts, torch.autograd.grad(algorithm.loss(trained, logprobs)["policy"], logprobs)[0]


@pytest.mark.parametrize("name", WEIGHING)
def test_where_both_agree_the_correction_is_nothing(name):
    """To the last bit."""
    plain, gradient = prepared(WEIGHING[name])
    corrected, same = prepared(WEIGHING[name], plain.old_logprobs, correct_sampler="truncated", sampler_cap=CAP)
    assert gradient.any() and torch.equal(same, gradient)
    assert torch.equal(plain.advantages, corrected.advantages)


@pytest.mark.parametrize("name", WEIGHING)
def test_where_they_do_not_each_score_has_a_bounded_weight(name):
    """A sampler to which some tokens were likelier, and others less likely."""
    plain, gradient = prepared(WEIGHING[name])
    ratio = torch.exp(torch.randn(plain.mask.shape, generator=torch.Generator().manual_seed(1)).double())
    sampler = plain.old_logprobs - ratio.log()
    _, corrected = prepared(WEIGHING[name], sampler, correct_sampler="truncated", sampler_cap=CAP)
    weights = ratio[plain.trained].clamp(max=CAP)
    assert ((weights < CAP) & gradient.bool()).any() and ((weights == CAP) & gradient.bool()).any()
    torch.testing.assert_close(corrected, weights * gradient)
    _, off = prepared(WEIGHING[name], sampler)
    assert torch.equal(off, gradient)


@pytest.mark.parametrize("make", [GSPO, P3O, OnlineDPO, Supervised])
def test_a_loss_without_weights_of_tokens_refuses_it(make):
    with pytest.raises(UsageError, match=rf"model\.correct_sampler .*{make.__name__}"):
        make(correct_sampler="truncated")


def test_certified_without_a_cap_on_one_token_and_where_both_agree():
    """Of longer responses a token's weight leaves out what the prefix has drifted."""
    corrected = partial(RLOO, samples=2, correct_sampler="truncated", sampler_cap=1e9)
    one = Additive(3, 1)
    assert certify(Claim("corrected", corrected, one, UNBIASED, before=earlier_policy)).holds
    capped = partial(corrected, sampler_cap=1.05)
    assert not certify(Claim("capped", capped, one, UNBIASED, before=earlier_policy)).holds
    assert certify(Claim("agreeing", capped, TASK, UNBIASED, before=random_policy)).holds
    assert not certify(Claim("long", corrected, TASK, UNBIASED, before=earlier_policy)).holds


def test_the_gap_is_in_nats_and_over_the_mask_alone():
    logprobs = -torch.rand(3, 4, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    sampler = torch.where(mask, logprobs + torch.tensor([0.1, 0.1, 0.1, -0.5], dtype=torch.float64), torch.nan)
    total, largest = gap(logprobs, sampler, mask)
    assert float(total) == pytest.approx(5 * 0.1 - 0.5) and float(largest.log()) == pytest.approx(0.5)
    assert gap(logprobs, logprobs, mask) == (0, 1)
