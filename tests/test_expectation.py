"""Enumerated expectations against the sampler's averages and by hand, and broken estimators against the certificate."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch

from lit_rl.algorithms import GRPO, REINFORCE, RLOO, ReMax, TRePO
from lit_rl.algorithms.gradients import group_gradients
from lit_rl.exact import expectation
from lit_rl.exact.certificate import Claim, certify, random_policy
from lit_rl.exact.formulas import NO_CLOSED_FORM, UNBIASED, grpo_std
from lit_rl.exact.second_step import clipped, earlier_policy, of_pairs
from lit_rl.exact.tree import grow
from lit_rl.functional.advantages import group_sum
from lit_rl.functional.cuts import Bernoulli, CutRule, Stride
from lit_rl.policy import TabularPolicy
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import Additive, KeyToken, Pairwise, Parity

EOS_TASK = Additive(3, 3, eos=True)
FORK = {"samples": 2, "continuations": 1}


def build(algorithm, task, **settings):
    policy = random_policy(task)
    return algorithm(policy=policy, max_new_tokens=task.length, reference=False, **settings), grow(policy, task)


# ---- the enumeration itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        partial(ReMax, samples=2),
        partial(TRePO, cuts=Stride(2), **FORK),
        partial(TRePO, cuts=Bernoulli(0.5), reuse=True, samples=1, root="continuations", continuations=1),
    ],
    ids=["ReMax", "TRePO", "reuse"],
)
def test_enumeration_agrees_with_the_sampler(make, monkeypatch):
    """Mean within 4 standard errors in every parameter, trace of the covariance within 10 %."""
    algorithm, tree = build(make, EOS_TASK)
    exact = expectation.moments(algorithm, tree)
    monkeypatch.setattr(expectation, "MOST_OUTCOMES", 1)
    sampled = expectation.moments(algorithm, tree, samples=6000, seed=3)
    assert exact.exact and not sampled.exact and sampled.outcomes == 6000
    assert sampled.trace_cov == pytest.approx(exact.trace_cov, rel=0.1)
    error = (exact.trace_cov / 6000) ** 0.5
    assert float((sampled.mean - exact.mean).abs().max()) < 4 * error
    assert 0 < float((sampled.mean - exact.mean).norm()) < 2 * error


def test_probabilities_of_all_outcomes_add_up_to_one():
    for settings in ({"cuts": Bernoulli(0.3)}, {"cuts": Stride(1)}, {"cuts": Stride(2), "reuse": True}):
        algorithm, tree = build(partial(TRePO, samples=1, root="continuations", continuations=1, **settings), EOS_TASK)
        branches = expectation._branches(algorithm, tree)
        table, probability = expectation._outcomes(algorithm, tree, branches)
        assert float(probability.sum()) == pytest.approx(1, abs=1e-12)
        assert len(table.examples) == len(probability) == int(table.group.max()) + 1


def test_a_table_is_laid_out_as_the_samplers(monkeypatch):
    """Samples, then the greedy probe, prompt by prompt, then continuations that share their origin's prefix."""
    algorithm, tree = build(partial(TRePO, cuts=Stride(1), **FORK), EOS_TASK)
    table, _ = expectation._outcomes(algorithm, tree, expectation._branches(algorithm, tree)[:40])
    forked = table.origin >= 0
    assert forked.any() and forked.tolist() == sorted(forked.tolist())
    assert (table.group[~forked].diff() >= 0).all()
    for row in forked.nonzero().squeeze(1).tolist()[:200]:
        origin, cut = int(table.origin[row]), int(table.cut[row])
        assert table.group[row] == table.group[origin] and not forked[origin] and table.cuts[origin, cut]
        assert torch.equal(table.response_ids[row, :cut], table.response_ids[origin, :cut])
        assert not table.mask[row, :cut].any() and table.mask[row, cut : table.lengths[row]].all()
    remax, tree = build(ReMax, EOS_TASK, samples=2)
    table, _ = expectation._outcomes(remax, tree, expectation._branches(remax, tree))
    assert table.trained.tolist() == [True, True, False] * (len(table) // 3)


@pytest.mark.parametrize("settings", [{}, {"reuse": True}, {"fill": "linear_value_mc"}])
def test_edge_weights_give_the_gradients_that_groups_are_measured_by(settings):
    """Two ways to one group's gradient: the derivative by log-probabilities, and backward through the policy."""
    algorithm, tree = build(partial(TRePO, cuts=Stride(2), **FORK, **settings), EOS_TASK)
    streams = [(5, i) for i in range(12)]
    table = LocalSampler().sample(algorithm.policy, [tree.prompt] * 12, algorithm.plan, streams)
    table.rewards, table.examples = EOS_TASK.returns(table.response_ids, table.lengths), [{}] * 12
    weights = expectation._edge_weights(algorithm, tree, table)
    direct = torch.stack(list(group_gradients(algorithm, table)))
    through = torch.stack([tree.gradient(w.view_as(tree.q)) for w in weights])
    torch.testing.assert_close(through, direct, rtol=0, atol=1e-12)


class Whitened(RLOO):
    """RLOO, whitened over whatever is in the table."""

    def advantages(self, rollouts):
        a = super().advantages(rollouts)[:, 0]
        return ((a - a.mean()) / (a.std() + 1e-2))[:, None].expand_as(rollouts.mask)


def test_an_algorithm_that_mixes_prompts_is_given_one_at_a_time():
    algorithm, tree = build(Whitened, Pairwise(2, 3), samples=2)
    table, probability = expectation._outcomes(algorithm, tree, expectation._branches(algorithm, tree))
    weights = expectation._edge_weights(algorithm, tree, table)
    for group in (0, 9, 33):
        alone = expectation._group(table, group)
        algorithm.prepare(alone, 8)
        gradient = next(iter(group_gradients(algorithm, alone)))
        torch.testing.assert_close(tree.gradient(weights[group].view_as(tree.q)), gradient, rtol=0, atol=1e-12)


# ---- what is known by hand ----------------------------------------------------------------------------------------


class Nowhere(CutRule):
    def chances(self, ids, lengths, entropy):
        return torch.zeros_like(entropy)


@pytest.mark.parametrize(
    "fill, expected",
    [
        ("segment_td", 1 / 4),
        ("hold_mc", 1 / 4),
        ("linear_value_mc", 1 / 8),
        ("linear_value_td", 1 / 8),
        ("linear_advantage", 0),
    ],
)
def test_two_fair_coins_of_which_the_second_pays(fill, expected):
    """T = 2, r = 1[a_2 = 1], the only cut at the start. With pi(1) = sigmoid(theta), dJ/d theta_2 = 1/4."""
    task = KeyToken(2, 2, position=1)
    policy = TabularPolicy(2, 2).double()
    algorithm = TRePO(policy=policy, max_new_tokens=2, reference=False, cuts=Nowhere(), fill=fill, **FORK)
    mean = expectation.moments(algorithm, grow(policy, task)).mean.view(3, 2)
    assert float(mean[1:, 1].sum()) == pytest.approx(expected, abs=1e-15)
    assert float(mean[0].abs().max()) == pytest.approx(0, abs=1e-15)


def test_rloo_has_less_noise_than_reinforce_and_more_samples_have_less():
    reinforce, few, many = (
        expectation.moments(*build(algorithm, Pairwise(2, 3), samples=n)).trace_cov
        for algorithm, n in ((REINFORCE, 2), (RLOO, 2), (RLOO, 3))
    )
    assert reinforce > few > many > 0


def test_independent_samples_divide_the_noise():
    one, three = (expectation.moments(*build(REINFORCE, Pairwise(2, 3), samples=n)).trace_cov for n in (1, 3))
    assert three == pytest.approx(one / 3, rel=1e-12)


# ---- broken estimators are caught ---------------------------------------------------------------------------------


class OwnSampleInTheMean(RLOO):
    def advantages(self, rollouts):
        returns = self.returns(rollouts)
        count = group_sum(torch.ones_like(returns), rollouts.group)
        return (returns - group_sum(returns, rollouts.group) / count)[:, None].expand_as(rollouts.mask)


@dataclass(frozen=True)
class BeforeUnlikelyTokens(CutRule):
    """Looks at the token behind the cut: here, where it is the one that pays."""

    def chances(self, ids, lengths, entropy):
        return (ids == 1).to(entropy)


class MaskOffByOne(RLOO):
    def prepare(self, rollouts, rows):
        super().prepare(rollouts, rows)
        last = torch.arange(rollouts.mask.shape[1]) == rollouts.lengths[:, None] - 1
        rollouts.advantages = rollouts.advantages * ~last  # EOS left out


class AdvantagesOneTokenLate(TRePO):
    def advantages(self, rollouts):
        return super().advantages(rollouts).roll(1, 1)


class PopulationDeviation(GRPO):
    def advantages(self, rollouts):
        g = self.plan.samples
        return super().advantages(rollouts) * (g / (g - 1)) ** 0.5


class ContinuationsCountedInFull(TRePO):
    """Reuse without the weights."""

    def advantages(self, rollouts):
        weights = 1 + self.plan.continuations * rollouts.cuts.cumsum(1)
        return super().advantages(rollouts) * weights


class OwnReturnAmongTheContinuations(TRePO):
    """The sample itself among the K + 1 whose mean is the value of its cut."""

    def advantages(self, rollouts):
        exact = super().advantages(rollouts)
        cut = rollouts.cuts.cumsum(1) > 0
        return torch.where(cut, exact * self.plan.continuations / (self.plan.continuations + 1), exact)


BINARY = Parity(2, 3)
LATER = {"before": earlier_policy, "expected": of_pairs("clipped", clipped(0.1, 0.4))}
BROKEN = [
    Claim("own sample in the mean", partial(OwnSampleInTheMean, samples=2), EOS_TASK),
    Claim("a cut that sees the future", partial(TRePO, cuts=BeforeUnlikelyTokens(), **FORK), EOS_TASK),
    Claim("a mask off by one", partial(MaskOffByOne, samples=2), EOS_TASK),
    Claim("advantages a token late", partial(AdvantagesOneTokenLate, cuts=Stride(2), **FORK), EOS_TASK),
    Claim("ddof", partial(PopulationDeviation, samples=2, normalizer="row_sum"), BINARY, grpo_std(2)),
    Claim("length normalised", partial(RLOO, samples=2, normalizer="sequence_mean"), EOS_TASK),
    Claim("reuse, not weighted", partial(ContinuationsCountedInFull, cuts=Stride(2), reuse=True, **FORK), EOS_TASK),
    Claim("ranges swapped", partial(RLOO, samples=2, clip_low=0.4, clip_high=0.1), EOS_TASK, **LATER),
    Claim("own return", partial(OwnReturnAmongTheContinuations, cuts=Stride(2), fill="hold_mc", **FORK), EOS_TASK),
]


@pytest.mark.parametrize("claim", BROKEN, ids=lambda claim: claim.estimator)
def test_broken_estimators_are_caught(claim):
    found = certify(claim)
    assert not found.holds and found.distance_to_expected > 1e-3


def test_their_unbroken_twins_pass():
    for claim in (
        Claim("RLOO", partial(RLOO, samples=2), EOS_TASK),
        Claim("TRePO", partial(TRePO, cuts=Stride(2), **FORK), EOS_TASK),
        Claim("GRPO", partial(GRPO, samples=2, normalizer="row_sum"), BINARY, grpo_std(2)),
        Claim("reuse", partial(TRePO, cuts=Stride(1), reuse=True, **FORK), Pairwise(2, 3)),
        Claim("clipped", partial(RLOO, samples=2, clip_low=0.1, clip_high=0.4), EOS_TASK, **LATER),
    ):
        assert certify(claim).holds


def test_a_claim_of_a_bias_that_is_not_there_fails():
    assert not certify(Claim("RLOO", partial(RLOO, samples=2), EOS_TASK, NO_CLOSED_FORM)).holds


def test_sampled_claims_say_so_and_catch_a_gross_bias(monkeypatch):
    monkeypatch.setattr(expectation, "MOST_OUTCOMES", 1)
    fine = certify(Claim("RLOO", partial(RLOO, samples=4), BINARY, UNBIASED))
    broken = certify(Claim("RLOO / T", partial(RLOO, samples=4, normalizer="sequence_mean"), BINARY, UNBIASED))
    assert fine.holds and 0 < fine.relative_bias < 4 * fine.standard_error
    assert not broken.holds and broken.standard_error > 0
