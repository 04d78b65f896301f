"""Each further estimator against its paper's formula, written out response by response."""

import math
import statistics

import pytest
import torch

from lit_rl.algorithms import CISPO, GRPO, GSPO, P3O, PPO, RLOO, RLZVP, OptimalBaseline, REINFORCEPlusPlus
from lit_rl.errors import UsageError
from lit_rl.exact.certificate import random_policy
from lit_rl.exact.tree import grow
from lit_rl.functional.advantages import leave_one_out, weighted_baseline
from lit_rl.functional.critic import whiten
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


# ---- GSPO, CISPO, REINFORCE++ ---------------------------------------------------------------------------------------


def standardized(rewards):
    """GRPO's advantages of one group."""
    return (rewards - rewards.mean()) / rewards.std() if rewards.std() > 0 else torch.zeros_like(rewards)


def test_gspo_clips_the_geometric_mean_of_a_responses_ratios(policy):
    def objective(logprobs):
        rows = list(responses(rollouts, logprobs))
        total = 0
        for group in range(4):
            some = rows[4 * group : 4 * group + 4]
            advantages = standardized(torch.stack([r for r, *_ in some]))
            for a, (_, new, old, n) in zip(advantages, some, strict=True):
                ratio = (new.exp() / old.exp()) ** (1 / n)
                total += torch.minimum(ratio * a, clip(ratio) * a) / 4
        return total / 4

    algorithm = GSPO(policy=policy, max_new_tokens=3, samples=4, **CLIP)
    rollouts = prepared(algorithm, policy, 4)
    same_gradient(algorithm, rollouts, objective)
    with pytest.raises(UsageError, match=r"model\.normalizer"):
        GSPO(policy=policy, normalizer="constant")


def test_cispo_clips_weights_and_keeps_gradients(policy):
    """The mean is over tokens; a token beyond the range has the weight of its end."""
    algorithm = CISPO(policy=policy, max_new_tokens=3, samples=4, **CLIP)
    rollouts = prepared(algorithm, policy, 4)
    logprobs, tokens = moved(rollouts), int(rollouts.mask.sum())
    (found,) = torch.autograd.grad(algorithm.loss(rollouts, logprobs)["policy"], logprobs)
    ratios = (logprobs.detach() - rollouts.old_logprobs).exp()
    beyond = 0
    for i, t in rollouts.mask.nonzero().tolist():
        group = rollouts.rewards[i // 4 * 4 : i // 4 * 4 + 4]
        weight = min(max(float(ratios[i, t]), 0.9), 1.4)
        beyond += weight != float(ratios[i, t])
        assert float(found[i, t]) == pytest.approx(-weight * float(standardized(group)[i % 4]) / tokens, abs=1e-12)
    assert 0 < beyond < tokens


@pytest.mark.parametrize("group_baseline", [False, True])
def test_reinforce_plus_plus_normalises_over_the_tokens_of_the_iteration(policy, group_baseline):
    """A token's return: the reward, minus the penalties from it on."""
    algorithm = REINFORCEPlusPlus(
        policy=policy, max_new_tokens=3, samples=4, group_baseline=group_baseline, kl_coefficient=0.1
    )
    with torch.no_grad():
        policy.model.table.add_(0.3 * torch.randn(policy.model.table.shape, dtype=torch.float64))
    rollouts = prepared(algorithm, policy, 4)
    returns = {}
    for i, n in enumerate(rollouts.lengths.tolist()):
        reward = rollouts.rewards[i]
        if group_baseline:
            reward = reward - rollouts.rewards[i // 4 * 4 : i // 4 * 4 + 4].mean()
        for t in range(n):
            ratios = rollouts.old_logprobs[i, t:n] - rollouts.reference_logprobs[i, t:n]
            returns[i, t] = float(reward - 0.1 * ratios.sum())
    mean, deviation = statistics.mean(returns.values()), statistics.stdev(returns.values())
    for (i, t), value in returns.items():
        assert float(rollouts.advantages[i, t]) == pytest.approx((value - mean) / deviation, abs=1e-9)


def test_processes_share_mean_and_deviation():
    """Half the rows, with the other half's sums added, are scaled as all rows are."""
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randn(6, 5, generator=generator), torch.rand(6, 5, generator=generator) < 0.7
    mean = x[mask].mean()
    others = iter([torch.stack([mask[3:].sum(), x[3:][mask[3:]].sum()]), (x[3:][mask[3:]] - mean).square().sum()])
    half = whiten(x[:3], mask[:3], lambda sums: sums + next(others))
    torch.testing.assert_close(half, whiten(x, mask)[:3])


def test_lambda_by_length_is_that_of_each_response(policy):
    """Against generalized advantages of each length by itself, with the lambda of VAPO; short responses get 0."""
    alpha = 0.5
    algorithm = PPO(policy=policy, max_new_tokens=3, lambda_by_length=alpha)
    torch.nn.init.normal_(algorithm.critic.double().head.weight)
    tree = grow(policy, TASK)
    rollouts = tree.rollouts(torch.arange(len(tree.ids)))
    algorithm.prepare(rollouts, 8)
    for n, expected in ((1, 0.0), (2, 0.0), (3, 1 / 3)):
        rows = rollouts.lengths == n
        assert rows.any()
        fixed = PPO(policy=policy, max_new_tokens=3, lambda_actor=expected, critic=None)
        some = rollouts.select(rows)
        torch.testing.assert_close(fixed.advantages(some) * some.mask, some.advantages)
    for settings in ({"lambda_actor": 0.5}, {"weighting": "full"}):
        with pytest.raises(UsageError, match=r"model\.lambda_by_length"):
            PPO(policy=policy, lambda_by_length=alpha, **settings)


# ---- RL-ZVP ---------------------------------------------------------------------------------------------------------


def test_rl_zvp_weighs_prompts_without_spread_by_entropy_and_leaves_the_others(policy):
    rollouts, plain = (table(policy, 3, 4) for _ in range(2))
    for each in (rollouts, plain):
        each.rewards = torch.tensor([1.0] * 4 + [0.0] * 4 + [0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
        each.one_step = True
    settings = {"policy": policy, "max_new_tokens": 3, "reference": False}
    RLZVP(alpha=0.2, **settings).prepare(rollouts, 8)
    GRPO(**settings).prepare(plain, 8)
    assert torch.equal(rollouts.advantages[8:], plain.advantages[8:]) and plain.advantages[:8].count_nonzero() == 0
    with torch.no_grad():
        chances = policy.logits(rollouts, 1.0).softmax(-1)
    for i in range(8):
        entropies = [
            -sum(float(p) * math.log(float(p)) for p in chances[i, t]) for t in range(int(rollouts.lengths[i]))
        ]
        for t, entropy in enumerate(entropies):
            expected = 0.2 * entropy if i < 4 else -0.2 * (max(entropies) - entropy)
            assert float(rollouts.advantages[i, t]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("settings", [{"rewards": "turns"}, {"kl": "k1_reward", "kl_coefficient": 0.1}])
def test_rl_zvp_takes_no_rewards_that_prompts_without_spread_have_no_use_for(policy, settings):
    with pytest.raises(UsageError, match=rf"model\.{next(iter(settings))} "):
        RLZVP(policy=policy, **settings)
