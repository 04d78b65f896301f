"""The enumerated task of two turns against sums over all it can come to, and estimators that take turns wrong."""

import itertools
from functools import partial

import pytest
import torch

from lit_rl.algorithms import GRPO, PPO, ReMax, TRePO
from lit_rl.algorithms.placements import AsEarned
from lit_rl.exact import expectation
from lit_rl.exact.certificate import Claim, certify, random_policy
from lit_rl.exact.dialogue import Dialogue
from lit_rl.exact.formulas import decayed
from lit_rl.exact.tree import grow
from lit_rl.exact.turn_claims import TWO_TURNS
from lit_rl.functional.critic import gae
from lit_rl.functional.cuts import Stride, Turns
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import Environment, Turn
from lit_rl.tasks.stepping import Environments, Stepper


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


# ---- the enumeration against the sampler --------------------------------------------------------------------------


class Remark(Dialogue):
    """The policy writes a token, the environment answers as in TwoTurns, and the policy writes another one."""

    spoken = (1,)

    def __init__(self):
        super().__init__(vocabulary=2, length=3)

    def answers(self, prefixes):
        return TWO_TURNS.answers(prefixes)

    def turn_rewards(self, ids):
        first, said, second = ids.T
        paid = torch.zeros(ids.shape, dtype=torch.float64)
        paid[:, 0], paid[:, 2] = 0.25 * (first == said), 0.75 * (second == first * said)
        return paid


class Remarking(Environment):
    def reset(self, example):
        self.heard = []
        return example["prompt"]

    def step(self, text):
        self.heard.append(int(text))
        if len(self.heard) == 2:
            first, second = self.heard
            return Turn(reward=0.75 * (second == first * self.said), done=True)
        repeats = self.random.random() < (0.7 if self.heard[0] == 0 else 0.6)
        self.said = self.heard[0] if repeats else 1 - self.heard[0]
        return Turn([{"role": "user", "content": str(self.said)}], 0.25 * repeats)


@pytest.mark.parametrize(
    "build",
    [
        partial(ReMax, samples=1),
        partial(TRePO, samples=2, continuations=1, cuts=Turns()),
        partial(TRePO, samples=1, root="continuations", continuations=2, cuts=Stride(1), reuse=True),
        partial(PPO, critic=None, placement=AsEarned()),
        partial(GRPO, samples=2, rewards="turns", scale_by_std=False, normalizer="row_sum"),
    ],
    ids=["ReMax", "turns", "reuse", "paid at turns", "compared at turns"],
)
def test_the_enumeration_agrees_with_the_sampler_and_a_real_environment(build):
    """Each weight of a score within 4.5 standard errors, and the number of tokens to 1%."""
    task, groups = Remark(), 1500
    policy = random_policy(task)
    algorithm, tree = build(policy=policy, max_new_tokens=2, reference=False), grow(policy, task)
    exact = expectation.moments(algorithm, tree)
    policy.stop_ids = torch.arange(2)  # a turn has one token
    examples, streams = list(task.prompts("train").select([0] * groups)), [(i,) for i in range(groups)]
    stepper = Stepper(lambda example: Remarking(), 1, 60.0, 16)
    environments = Environments(stepper, stepper.open(examples, streams))
    table = LocalSampler(4096).sample(
        policy, [tree.prompt] * groups, algorithm.plan, streams, environments=environments
    )
    assert set(table.lengths.tolist()) == {3} and table.spoken[:, 1].all() and not table.truncated.any()
    table.examples, table.rewards = examples, table.turn_rewards.double().sum(1)
    torch.testing.assert_close(table.rewards, task.returns(table.response_ids, table.lengths))
    tokens = float(table.mask.sum()) / groups
    found = expectation._weights_of(algorithm, tree, table, None)
    error = found.std(0) / groups**0.5
    assert ((found.mean(0) - exact.weights.flatten()).abs() <= 4.5 * error + 1e-12).all() and error.any()
    assert tokens == pytest.approx(exact.tokens, rel=0.01)


# ---- faults --------------------------------------------------------------------------------------------------------


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
