"""The enumerated task of two turns against sums over all it can come to, and estimators that take turns wrong."""

import itertools
from functools import partial

import pytest
import torch

from lit_rl.algorithms import PPO, ReMax, TRePO
from lit_rl.exact import expectation
from lit_rl.exact.certificate import Claim, certify, random_policy
from lit_rl.exact.formulas import decayed
from lit_rl.exact.tree import grow
from lit_rl.exact.turn_claims import TWO_TURNS
from lit_rl.functional.critic import gae
from lit_rl.functional.cuts import Stride, Turns


@pytest.fixture(scope="module")
def tree():
    return grow(random_policy(TWO_TURNS), TWO_TURNS)


def spelled_out(policy):
    """Of every response: its tokens, log pi of the policy's three, the environment's chance, and the reward."""
    for word in itertools.product((0, 1), repeat=4):
        ids = torch.tensor([[0, *word]])
        logits = policy.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(-1)
        logprob = logits[0, word[0]] + logits[2, word[2]] + logits[3, word[3]]
        repeated = 0.7 if word[0] == 0 else 0.6
        chance = repeated if word[0] == word[1] else 1 - repeated
        yield word, logprob, chance, 0.25 * (word[0] == word[1]) + 0.75 * (word[0] + word[1] == word[2] + word[3])


def test_values_and_gradients_are_those_of_the_sum_over_all_responses(tree):
    known = list(spelled_out(tree.policy))
    assert [tuple(ids) for ids in tree.ids.tolist()] == [word for word, *_ in known]
    assert tree.probability().tolist() == pytest.approx([logprob.exp().item() * c for _, logprob, c, _ in known])
    assert tree.rewards.tolist() == [reward for *_, reward in known]
    objective = sum(logprob.exp() * chance * reward for _, logprob, chance, reward in known)
    assert objective.item() == pytest.approx(float(tree.objective))
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(objective, list(tree.policy.parameters()))])
    parts = tree.position_gradients()
    for found in (tree.gradient(), tree.score_gradient(tree.rewards), parts.sum(0)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not parts[1].any() and parts[0].any() and parts[2].any()  # nobody learns what the environment says


def test_rollouts_say_who_spoke_and_what_was_paid(tree):
    rollouts = tree.rollouts(torch.arange(16))
    assert rollouts.mask.all(0).tolist() == [True, False, True, True] and torch.equal(rollouts.spoken, ~rollouts.mask)
    torch.testing.assert_close(rollouts.turn_rewards.sum(1), rollouts.rewards)
    assert not rollouts.turn_rewards[:, 1:3].any()


@pytest.mark.parametrize(("cuts", "expected"), [(Turns(), {0, 2}), (Stride(2), {0, 3}), (Stride(1), {0, 2, 3})])
def test_continuations_begin_at_the_policys_tokens_and_keep_what_was_said(tree, cuts, expected):
    settings = {"cuts": cuts, "reuse": cuts == Stride(1)}
    algorithm = TRePO(policy=random_policy(TWO_TURNS), samples=1, root="continuations", continuations=1, **settings)
    table, probability = expectation._outcomes(algorithm, tree, expectation._branches(algorithm, tree))
    assert float(probability.sum()) == pytest.approx(1)
    forked = table.select(table.origin >= 0)
    assert set(forked.cut.tolist()) == expected
    said = table.response_ids[forked.origin, 1] == forked.response_ids[:, 1]
    assert said[forked.cut > 0].all() and not said[forked.cut == 0].all()


def test_a_greedy_response_is_answered_by_chance(tree):
    algorithm = ReMax(policy=random_policy(TWO_TURNS))
    table, probability = expectation._outcomes(algorithm, tree, expectation._branches(algorithm, tree))
    greedy = table.select(~table.trained)
    assert len(greedy) == 32 and float(probability.sum()) == pytest.approx(1)
    first = int(greedy.response_ids[0, 0])
    assert (greedy.response_ids[:, 0] == first).all()
    repeated = float(probability[greedy.response_ids[:, 1] == first].sum())
    assert repeated == pytest.approx(0.7 if first == 0 else 0.6)


class EveryColumn(PPO):
    """Decays over the environment's tokens as well, a fault of other libraries."""

    def advantages(self, rollouts):
        earned = self._earned(rollouts)
        return gae(earned, torch.zeros_like(earned), rollouts.filled, self.lambda_actor)


class ToldBefore(TRePO):
    """Takes the value at the second turn for that of the prompt: it knows what the policy was to say."""

    def advantages(self, rollouts):
        weights, forked = rollouts.rewards[:, None].repeat(1, 4), rollouts.origin >= 0
        weights[rollouts.origin[forked], 0] -= rollouts.rewards[forked]
        return weights


def test_estimators_that_take_turns_wrong_are_found_out():
    undecided = decayed(0.5, lambda tree: -tree.along(tree.v, tree.ids, tree.lengths))  # of a critic of zeros
    for build, right in ((PPO, True), (EveryColumn, False)):
        claim = Claim("lambda", partial(build, critic=None, lambda_actor=0.5), TWO_TURNS, undecided)
        assert certify(claim).holds == right
    settings = {"samples": 2, "continuations": 1, "cuts": Turns()}
    assert certify(Claim("right", partial(TRePO, **settings), TWO_TURNS)).holds
    assert not certify(Claim("told", partial(ToldBefore, **settings), TWO_TURNS)).holds
