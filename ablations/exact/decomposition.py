"""Decomposition, exactly: bias and noise as the reward leaves the sum over tokens, each beside its prediction.

The reward is (1 - c) additive + c other. Expectations are linear in the reward: the bias of an estimator is
(1 - c) B_0 + c B_1, with the biases B of the two parts alone; for most estimators B_0 is 0. Tokens are drawn
independently of each other, each position with a distribution of its own, so that the value of an additive reward is
additive, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ablations.exact.rows import Row, row
from lit_rl.algorithms import PPO, REINFORCE, RLOO, TRePO
from lit_rl.algorithms.placements import Causal, Uniform
from lit_rl.exact.certificate import Build, Claim, examine
from lit_rl.exact.formulas import UNBIASED, Formula, decayed, redistributed
from lit_rl.exact.learned import attention, attentive_model, randomly, with_critic
from lit_rl.exact.noise import predicted_noise, trepo_noise
from lit_rl.exact.tree import Tree, grow
from lit_rl.functional import placement
from lit_rl.functional.critic import gae
from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy, TabularPolicy
from lit_rl.policy.critic import Critic
from lit_rl.rollouts import Rollouts
from lit_rl.tasks import Bottleneck, Pairwise, Parity, PartlyAdditive, PositionTask

VOCABULARY, LENGTH, SAMPLES = 2, 4, 2
KINDS: dict[str, Callable[..., PositionTask]] = {
    "Pairwise": Pairwise,
    "Parity": Parity,
    "Bottleneck": partial(Bottleneck, positions=(0, 1)),
}
SHARES = 0.0, 0.25, 0.5, 0.75, 1.0  # c


class Forked(NamedTuple):
    """Where TRePO cuts, and the continuations of each cut but the first. RLOO does not cut any further."""

    cuts: tuple[int, ...] = (0,)
    continuations: int = 1

    @property
    def tokens(self) -> float:
        """Generated, over those of the response."""
        return 1 + self.continuations * sum(LENGTH - cut for cut in self.cuts[1:]) / LENGTH


class Estimator(NamedTuple):
    """What is enumerated.

    Attributes:
        build: for a task.
        expected: its expectation on a part of the reward alone.
        forked: of RLOO and TRePO, whose noise has a formula.
    """

    build: Callable[[PartlyAdditive], Build]
    expected: Formula = UNBIASED
    forked: Forked | None = None


class TokenRewards(REINFORCE):
    """Weighs each token by what is paid from it on.

    Args:
        paid: of rollouts: [N, T].
    """

    def __init__(self, paid: Callable[[Rollouts], Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.paid = paid

    def advantages(self, rollouts: Rollouts) -> Tensor:
        paid = self.paid(rollouts)
        return gae(paid, torch.zeros_like(paid), rollouts.mask, 1.0)


def rows(smoke: bool = False) -> list[Row]:
    """A row for each kind of task, share c and estimator; RLOO has the noise 1."""
    shares = SHARES[2:3] if smoke else SHARES
    return [each for kind in KINDS for c in shares for each in rows_of(kind, c)]


def rows_of(kind: str, c: float) -> list[Row]:
    """The rows of a task in which its kind has the share c."""
    ends = [_tree(_task(kind, share)) for share in (0.0, 1.0)]
    task = _task(kind, c)
    tree = _tree(task)
    base, found = None, []
    for name, estimator in estimators().items():
        claim = Claim(name, estimator.build(task), task, policy=independent_tokens)
        moments = examine(claim)[1]
        base = moments if base is None else base  # RLOO's
        formula = estimator.expected.gradient
        assert formula is not None
        expected = (1 - c) * formula(ends[0]) + c * formula(ends[1])
        forked = estimator.forked
        exact = None if forked is None else trepo_noise(tree, *forked, SAMPLES)
        setting: Row = {"task": kind, "c": c, "estimator": name}
        each = row(setting, moments, tree.gradient(), expected, base.trace_cov, exact)
        each["noise per token"] = moments.trace_cov / base.trace_cov * moments.tokens / base.tokens
        each["predicted noise per token"] = ""
        if forked is not None:
            predicted = predicted_noise(tree, *forked, SAMPLES) / base.trace_cov
            each["predicted noise per token"] = predicted * forked.tokens
        found.append(each)
    return found


def estimators() -> dict[str, Estimator]:
    """By name, RLOO first."""

    def trepo(stride: int, k: int) -> Estimator:
        build = partial(TRePO, samples=SAMPLES, continuations=k, cuts=Stride(stride))
        return Estimator(lambda task: build, forked=Forked(tuple(range(0, LENGTH, stride)), k))

    def paid(how: Callable[[PartlyAdditive, Rollouts], Tensor], expected: Formula) -> Estimator:
        return Estimator(lambda task: partial(TokenRewards, paid=partial(how, task)), expected)

    def critic(decay: float) -> Estimator:
        build = partial(PPO, lambda_actor=decay)
        return Estimator(
            lambda task: with_critic(build, partial(_additive_critic, task)), decayed(decay, _critic_errors)
        )

    return {
        "RLOO": Estimator(lambda task: partial(RLOO, samples=SAMPLES), forked=Forked()),
        "REINFORCE": Estimator(lambda task: REINFORCE),
        "PPO, random critic": Estimator(lambda task: with_critic(PPO, randomly)),
        "TRePO, cut at 2": trepo(2, 1),
        "TRePO, cut at 3": trepo(3, 1),
        "TRePO, cut at 3, K=2": trepo(3, 2),
        "reward as earned": Estimator(lambda task: partial(PPO, critic=None, placement=Causal(task))),
        "reward spread evenly": Estimator(
            lambda task: partial(PPO, critic=None, placement=Uniform()), redistributed(1.0, _evenly)
        ),
        "sum as earned, rest spread evenly": paid(_rest_even, _of_the_rest(redistributed(1.0, _evenly))),
        "sum as earned, rest by attention": paid(_rest_attended, _of_the_rest(redistributed(1.0, attention))),
        "token rewards fitted as a sum": paid(
            _fitted, Formula("grad E[additive fit]", lambda tree: tree.score_gradient(_fit(tree)[0]))
        ),
        "PPO lambda 0.95, additive critic": critic(0.95),
        "PPO lambda 0.5, additive critic": critic(0.5),
    }


def independent_tokens(task: PositionTask) -> TabularPolicy:
    """A table whose distributions differ between positions and not between prefixes; logits from N(0, 1), float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits = torch.randn(task.length, task.vocabulary, dtype=torch.float64)
    policy = TabularPolicy(task.vocabulary, task.length).double()
    prefixes = torch.tensor([task.vocabulary**t for t in range(task.length)])  # the table goes by their length
    with torch.no_grad():
        dict(policy.named_parameters())["model.table"].copy_(logits.repeat_interleave(prefixes, 0))
    return policy


# ---- token rewards --------------------------------------------------------------------------------------------------


def _rest_even(task: PartlyAdditive, rollouts: Rollouts) -> Tensor:
    return _with_rest(task, rollouts, rollouts.mask.double())


def _rest_attended(task: PartlyAdditive, rollouts: Rollouts) -> Tensor:
    with torch.no_grad():
        return _with_rest(task, rollouts, attentive_model(VOCABULARY).double().attention(rollouts).double())


def _with_rest(task: PartlyAdditive, rollouts: Rollouts, weights: Tensor) -> Tensor:
    """The additive part as it is earned, the other one in proportion to weights [N, T]."""
    ids, lengths = rollouts.response_ids, rollouts.lengths
    own = (1 - task.share) * task.additive.earned(ids, lengths)
    return own + placement.weighted(task.share * task.other.returns(ids, lengths), weights, rollouts.mask)


def _fitted(task: PartlyAdditive, rollouts: Rollouts) -> Tensor:
    """What a model of token rewards pays that was fitted to the rewards as a sum over tokens."""
    return _fit(_tree(task))[1][torch.arange(task.length), rollouts.response_ids]


def _of_the_rest(formula: Formula) -> Formula:
    """The formula on the other task, and no bias on the additive one."""
    known = formula.gradient
    assert known is not None
    return Formula(formula.name, lambda tree: known(tree) if _share(tree) else tree.gradient())


def _evenly(tree: Tree) -> Tensor:
    return torch.full(tree.ids.shape, 1 / tree.task.length, dtype=torch.float64)


# ---- what is fitted as a sum over tokens ----------------------------------------------------------------------------


def _fit(tree: Tree) -> tuple[Tensor, Tensor]:
    """The sum over tokens that is closest to the reward, in the mean over responses.

    Returns:
        its value for every leaf [S], and its token rewards [T, V].
    """
    features = _tokens(tree.ids, tree.lengths, tree.task.vocabulary)
    value, weights = _least_squares(features, tree.rewards, tree.probability())
    return value, weights.view(tree.task.length, -1)


def _additive_values(tree: Tree) -> Tensor:
    """The critic that adds up over a prefix's tokens and is closest to V, in the mean over visits: [X].

    It has a constant for each length of a prefix, and a value for each token at each position.
    """
    task, depth = tree.task, tree.depth
    states = tree.edges(tree.ids, tree.lengths) // task.vocabulary  # [S, T]
    ids = torch.zeros(len(depth), task.length, dtype=torch.long)
    for t in range(task.length):
        ids[states[:, t]] = tree.ids
    features = torch.cat([_tokens(ids, depth, task.vocabulary), one_hot(depth, task.length).double()], 1)
    return _least_squares(features, tree.v, tree.reach)[0]


def _critic_errors(tree: Tree) -> Tensor:
    """Of the additive critic along every leaf: [S, T]."""
    return tree.along(_additive_values(tree) - tree.v, tree.ids, tree.lengths)


def _additive_critic(task: PartlyAdditive, critic: Critic, policy: CausalPolicy) -> None:
    """Gives a critic of a table these values; without EOS, tree and table number the prefixes alike."""
    critic.head.weight.data[0] = _additive_values(grow(policy, task))


def _tokens(ids: Tensor, lengths: Tensor, vocabulary: int) -> Tensor:
    """1 where a token stands at a position below the length: [N, T V]."""
    there = torch.arange(ids.shape[1]) < lengths[:, None]
    return (one_hot(ids, vocabulary) * there[..., None]).flatten(1).double()


def _least_squares(features: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Fitted values and coefficients, the smallest ones that fit."""
    root = weights.sqrt()
    coefficients = torch.linalg.pinv(root[:, None] * features) @ (root * target)
    return features @ coefficients, coefficients


# ---- tasks ----------------------------------------------------------------------------------------------------------


def _task(kind: str, share: float) -> PartlyAdditive:
    return PartlyAdditive(VOCABULARY, LENGTH, other=KINDS[kind], share=share)


def _tree(task: PositionTask) -> Tree:
    return grow(independent_tokens(task), task)


def _share(tree: Tree) -> float:
    assert isinstance(tree.task, PartlyAdditive)
    return tree.task.share
