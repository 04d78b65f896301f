"""Each further estimator against its paper's formula, written out response by response."""

import pytest
import torch

from lit_rl.algorithms import P3O, RLOO, OptimalBaseline
from lit_rl.errors import UsageError
from lit_rl.exact.certificate import random_policy
from lit_rl.exact.tree import grow
from lit_rl.functional.advantages import leave_one_out, weighted_baseline
from lit_rl.tasks import Additive

TASK = Additive(3, 3, eos=True)
CLIP = {"clip_low": 0.1, "clip_high": 0.4}


@pytest.fixture
def policy():
    return random_policy(TASK)


def table(policy, groups, samples, seed=0):
    """Groups of responses of all lengths, scored."""
    tree = grow(policy, TASK)
    leaves = torch.randint(len(tree.ids), (groups * samples,), generator=torch.Generator().manual_seed(seed))
    rollouts = tree.rollouts(leaves)
    rollouts.group = torch.arange(groups).repeat_interleave(samples)
    rollouts.examples = rollouts.examples * groups
    return rollouts


def prepared(algorithm, policy, samples, groups=4):
    rollouts = table(policy, groups, samples)
    algorithm.prepare(rollouts, 8)
    return rollouts


def moved(rollouts, spread=0.4):
    """Log-probabilities of weights behind some steps, with a gradient."""
    noise = spread * torch.randn(rollouts.mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (rollouts.old_logprobs + noise * rollouts.mask).requires_grad_()


def responses(rollouts, logprobs):
    """For each response its reward, log-probability, old log-probability and length."""
    for i, n in enumerate(rollouts.lengths.tolist()):
        yield rollouts.rewards[i], logprobs[i, :n].sum(), rollouts.old_logprobs[i, :n].sum(), n


def same_gradient(algorithm, rollouts, objective):
    """The loss's gradient by log-probabilities is minus the objective's."""
    logprobs = moved(rollouts)
    (found,) = torch.autograd.grad(algorithm.loss(rollouts, logprobs)["policy"], logprobs)
    (expected,) = torch.autograd.grad(objective(logprobs), logprobs)
    assert expected.any()
    torch.testing.assert_close(found, -expected)


def clip(ratio, low=0.1, high=0.4):
    return ratio.clamp(1 - low, 1 + high)


# ---- P3O ------------------------------------------------------------------------------------------------------------


def test_on_its_own_samples_p3o_is_rloo_with_two_responses(policy):
    for settings in ({}, {"clipping": "joint"}):
        p3o, rloo = P3O(policy=policy, max_new_tokens=3, **settings), RLOO(policy=policy, max_new_tokens=3, samples=2)
        gradients = []
        for algorithm in (p3o, rloo):
            rollouts = prepared(algorithm, policy, 2)
            logprobs = rollouts.old_logprobs.clone().requires_grad_()
            gradients += torch.autograd.grad(algorithm.loss(rollouts, logprobs)["policy"], logprobs)
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


def test_p3o_clips_each_response_or_the_pair(policy):
    def separate(logprobs):
        rows = list(responses(rollouts, logprobs))
        total = 0
        for one, two in zip(rows[::2], rows[1::2], strict=True):
            for (r, new, old, _), other in ((one, two), (two, one)):
                ratio, difference = (new - old).exp(), r - other[0]
                total += torch.minimum(ratio * difference, clip(ratio) * difference) / 2
        return total / 4

    def joint(logprobs):
        rows = list(responses(rollouts, logprobs))
        total = 0
        for one, two in zip(rows[::2], rows[1::2], strict=True):
            better, worse = (one, two) if one[0] > two[0] else (two, one)
            ratio = (better[1] - better[2] - worse[1] + worse[2]).exp()
            total += torch.minimum(ratio, clip(ratio)) * (better[0] - worse[0]) / 2
        return total / 4

    for clipping, objective in (("separate", separate), ("joint", joint)):
        algorithm = P3O(policy=policy, max_new_tokens=3, clipping=clipping, **CLIP)
        rollouts = prepared(algorithm, policy, 2)
        same_gradient(algorithm, rollouts, objective)
        logprobs = moved(rollouts).detach()
        assert 0 < algorithm.clipped(rollouts, logprobs, rollouts.old_logprobs) < 1
        assert algorithm.clipped(rollouts, rollouts.old_logprobs, rollouts.old_logprobs) == 0


def test_p3o_takes_pairs_alone(policy):
    for settings, message in (({"samples": 4}, "model.samples is 4"), ({"normalizer": "constant"}, "model.normalizer")):
        with pytest.raises(UsageError, match=message):
            P3O(policy=policy, **settings)


# ---- optimal baselines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["response", "token", "prefix"])
@pytest.mark.parametrize("others", [True, False])
def test_the_optimal_baseline_is_the_mean_weighted_by_squared_norms_of_scores(policy, per, others):
    """The norms are those of autograd's gradients of each token's log-probability by its logits."""
    algorithm = OptimalBaseline(policy=policy, max_new_tokens=3, samples=4, per=per, leave_one_out=others)
    rollouts = prepared(algorithm, policy, 4)
    logits = policy.logits(rollouts, 1.0).detach()
    norms = torch.zeros(rollouts.mask.shape, dtype=torch.float64)
    for i, t in rollouts.mask.nonzero().tolist():
        row = logits[i, t].clone().requires_grad_()
        (score,) = torch.autograd.grad(row.log_softmax(-1)[rollouts.response_ids[i, t]], row)
        norms[i, t] = score.square().sum()
    for i, t in rollouts.mask.nonzero().tolist():
        some = [j for j in range(i // 4 * 4, i // 4 * 4 + 4) if j != i or not others]
        if per == "token":
            weights = [float(norms[j, t]) for j in some]
        elif per == "prefix":
            weights = [float(norms[j, : t + 1].sum()) * bool(rollouts.mask[j, t]) for j in some]
        else:
            weights = [float(norms[j].sum()) for j in some]
        if not sum(weights):
            weights = [1.0] * len(some)
        baseline = sum(w * float(rollouts.rewards[j]) for w, j in zip(weights, some, strict=True)) / sum(weights)
        assert float(rollouts.advantages[i, t]) == pytest.approx(float(rollouts.rewards[i]) - baseline, abs=1e-12)


def test_with_equal_weights_it_is_rloo_and_without_spread_exactly_nothing():
    returns = torch.tensor([[0.1, 0.7, 0.3], [0.1, 0.1, 0.1]])
    baseline = weighted_baseline(returns, torch.full((2, 3, 2), 0.3))
    expected = leave_one_out(returns.flatten(), torch.tensor([0, 0, 0, 1, 1, 1])).view(2, 3)
    torch.testing.assert_close(returns[..., None] - baseline, expected[..., None].expand(2, 3, 2))
    weights = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    assert ((returns[..., None] - weighted_baseline(returns, weights))[1] == 0).all()
