"""token_information, enumerated: every combination of scalar, placement, weighting and critic, on three small tasks."""

import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablations.exact.rows import Row, row
from ablations.studies.token_information import (
    ABC,
    ATTENTION,
    CAUSAL,
    DECAYED,
    IMPLIED,
    KNOWN,
    LAST,
    LEARNED,
    NONE,
    OWN,
    RTO,
    SAMPLES,
    SCORED,
    STRONGER,
)
from lit_rl.algorithms import PPO
from lit_rl.algorithms.placements import Attention, Causal, Last, Placement, Potential, Shuffled, Uniform
from lit_rl.exact.certificate import random_policy
from lit_rl.exact.expectation import Moments, moments
from lit_rl.exact.formulas import Formula, by_position, decayed, redistributed
from lit_rl.exact.learned import attention, attentive_model
from lit_rl.exact.oracle import ExactCritic
from lit_rl.exact.tree import Tree, grow
from lit_rl.functional import placement
from lit_rl.rollouts import Rollouts
from lit_rl.tasks import Bottleneck, KeyToken, Pairwise, PositionTask

TOKENS, LENGTH = 3, 4
TASKS = (KeyToken(TOKENS, LENGTH, position=2), Bottleneck(TOKENS, LENGTH), Pairwise(TOKENS, LENGTH))
ERRORS = {SCORED: 1.0, STRONGER: 0.3}  # standard deviations of a reward model's errors; the task's rewards are 0 to 1
BETA, LIMIT = 0.1, 0.05  # of RTO's token rewards
POTENTIAL, UNIFORM, SHUFFLED = "potential", "uniform", "shuffled"
TO_GO, FULL = "to_go", "full"
SHARES = {DECAYED: 0.5, LEARNED: 0.5, KNOWN: 1.0}  # of the exact values, that a critic predicts
DECAY = 0.95


class Combination(NamedTuple):
    """How a scalar is used."""

    placement: str
    weighting: str
    critic: str

    @property
    def like(self) -> "Combination | None":
        """Whose noise theory says that it has: with the full return, or with exact values of what is paid at once."""
        same = self.weighting == FULL or (self.critic == KNOWN and self.placement in (CAUSAL, POTENTIAL, RTO))
        return self._replace(placement=LAST) if same else None


REFERENCE = Combination(LAST, TO_GO, NONE)


class Scalar(PositionTask):
    """A task whose responses earn ``extra`` beside, given for the tokens of every response: [S, T]."""

    def __init__(self, tree: Tree, extra: Tensor) -> None:
        task = tree.task
        super().__init__(task.vocabulary, task.length, task.eos_id is not None, task.size)
        self.tree, self.extra = tree, extra

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.tree.task.returns(ids, lengths) + self.more(ids, lengths).sum(1)

    def earned(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.tree.task.earned(ids, lengths) + self.more(ids, lengths)

    def more(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """What the tokens of N responses earn beside: [N, T]."""
        return self.extra[self.tree.leaves(ids, lengths)]


class Implied(Placement):
    """RTO's: what a scalar adds is paid at its tokens, and the task's own reward at the last one."""

    def __init__(self, scalar: Scalar) -> None:
        self.scalar = scalar

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        return placement.causal(self.scalar.more(rollouts.response_ids, rollouts.lengths), total, rollouts.mask)


def rows(smoke: bool) -> list[Row]:
    """A row a combination; with ``smoke`` those of the first task's own reward alone."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        attentive_model(TOKENS).model.save_pretrained(folder)
        looked = {ATTENTION: Attention(folder), ABC: Attention(folder, 0.5)}
    for attentive in looked.values():
        attentive.model.double()
    for task in TASKS[:1] if smoke else TASKS:
        tree = grow(random_policy(task), task)
        progress = tree.gradient() / tree.gradient().norm()
        own = 0.0
        for name, scalar in scalars(tree).items():
            if smoke and name != OWN:
                continue
            scored = grow(tree.policy, scalar)
            made = {where: each for where, each in (placements(scalar) | looked).items() if where != ABC or name == OWN}
            measured = {each: moments(algorithm(each, scalar, made), scored) for each in combinations(made)}
            own = own or _samples(measured[REFERENCE], progress)
            setting: Row = {"task": type(task).__name__, "scalar": name}
            setting["pair accuracy"] = pair_accuracy(tree.rewards, scored.rewards, tree.probability())
            for each, moment in measured.items():
                line = row(
                    {**setting, **each._asdict()},
                    moment,
                    scored.gradient(),
                    predicted(each, scored, made[each.placement]),
                    measured[REFERENCE].trace_cov,
                    None if each.like is None else measured[each.like].trace_cov,
                )
                found.append({**line, SAMPLES: _samples(moment, progress) / own})
    return found


def scalars(tree: Tree) -> dict[str, PositionTask]:
    """The task itself, with RTO's token rewards, and what two reward models make of it.

    The token rewards are those of the policy that DPO has in the limit of much data, pi(a | s) proportional to
    pi_ref(a | s) exp(Q / BETA), where the policy is still its reference. A reward model's errors are normal, one a
    response, and known at its end.
    """
    last = torch.arange(tree.ids.shape[1]) == tree.lengths[:, None] - 1
    certain = (tree.rewards / BETA).exp()[:, None].expand(last.shape)
    before = tree.along(tree.state_means(certain), tree.ids, tree.lengths).log()
    after = torch.cat([before[:, 1:], certain[:, :1].log()], 1)
    implied = (BETA * (after - before)).clamp(-LIMIT, LIMIT)
    errors = torch.randn(len(tree.ids), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * last
    more = {IMPLIED: implied, **{name: size * errors for name, size in ERRORS.items()}}
    return {OWN: tree.task, **{name: Scalar(tree, extra) for name, extra in more.items()}}


def placements(scalar: PositionTask) -> dict[str, Placement]:
    """Those that need no reward model."""
    causal = Causal(scalar)
    every = {LAST: Last(), CAUSAL: causal, POTENTIAL: Potential(), UNIFORM: Uniform(), SHUFFLED: Shuffled(causal)}
    return every | ({RTO: Implied(scalar)} if isinstance(scalar, Scalar) and scalar.extra[:, :-1].any() else {})


def combinations(made: dict[str, Placement]) -> Iterator[Combination]:
    """With the full return there is no lambda below 1."""
    for weighting in (TO_GO, FULL):
        for critic in (NONE, DECAYED, LEARNED, KNOWN):
            if weighting == TO_GO or critic != DECAYED:
                yield from (Combination(where, weighting, critic) for where in made)


def algorithm(each: Combination, scalar: PositionTask, made: dict[str, Placement]) -> PPO:
    settings: dict[str, Any] = {
        "policy": random_policy(scalar),
        "max_new_tokens": scalar.length,
        "reference": False,
        "placement": made[each.placement],
        "weighting": each.weighting,
        "lambda_actor": DECAY if each.critic == DECAYED else 1.0,
    }
    if each.critic == NONE:
        return PPO(critic=None, **settings)
    return ExactCritic(scalar, SHARES[each.critic], **settings)


def predicted(each: Combination, tree: Tree, placed: Placement) -> Tensor:
    """The mean gradient by theory."""
    if each.weighting == FULL:
        return tree.gradient()
    leaves = tree.rollouts(torch.arange(len(tree.ids)))
    paid = placed(tree.rewards, leaves, len(tree.ids))
    length = tree.ids.shape[1]
    if each.placement == UNIFORM:
        mean = _gradient(by_position("", [1 - t / length for t in range(length)]), tree)
    elif isinstance(placed, Attention):
        mean = _gradient(redistributed(placed.beta, attention), tree)
    elif each.placement == SHUFFLED:
        mean = tree.gradient() - tree.score_gradient(paid.cumsum(1) - paid)  # what was paid before is missed
    else:
        mean = tree.gradient()
    if each.critic != DECAYED:
        return mean
    ahead = tree.along(tree.state_means(paid.flip(1).cumsum(1).flip(1)), tree.ids, tree.lengths)
    errors = (SHARES[DECAYED] - 1) * ahead
    return mean + _gradient(decayed(DECAY, lambda _: errors), tree) - tree.gradient()


def _gradient(formula: Formula, tree: Tree) -> Tensor:
    assert formula.gradient is not None
    return formula.gradient(tree)


def pair_accuracy(rewards: Tensor, scores: Tensor, probability: Tensor) -> float:
    """The chance that the better of two different responses has the higher score: held-out accuracy, exactly."""
    pairs = probability[:, None] * probability * (rewards[:, None] > rewards)
    return float((pairs * (scores[:, None] > scores)).sum() / pairs.sum())


def _samples(found: Moments, progress: Tensor) -> float:
    """tr Sigma over the squared part of the mean along a direction: as many groups bring equal progress."""
    return found.trace_cov / float(found.mean @ progress) ** 2
