"""Expectation and noise of an algorithm's gradient, computed by the algorithm's own ``prepare`` and ``loss``.

Every set of rollouts that the algorithm's plan can draw for a prompt is built, passes through the algorithm, and counts
with its probability. No formula of an estimator is repeated here.
"""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.errors import UsageError
from lit_rl.exact.dialogue import spoken_at
from lit_rl.exact.tree import Tree
from lit_rl.rollouts import Rollouts, response_mask
from lit_rl.sampling import LocalSampler, SamplingPlan

MOST_OUTCOMES = 200_000
SAMPLES = 4_000  # groups, where there are more outcomes
ROWS = 16_384  # of one forward pass


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the gradient that one prompt's group gives.

    Attributes:
        mean: E[g], in the direction of ascent: [D].
        weights: the weight of each edge's psi in that mean: [X, V].
        trace_cov: E|g|^2 - |E g|^2.
        tokens: sampled for it on average, probes included.
        outcomes: the number of sets of rollouts that were enumerated or sampled.
        exact: whether they were enumerated.
    """

    mean: Tensor
    weights: Tensor
    trace_cov: float
    tokens: float
    outcomes: int
    exact: bool


Pattern = tuple[bool, ...]  # [T] where a response is cut


class Branch(NamedTuple):
    """One sample, its first row, with its continuations."""

    probability: float
    leaves: list[int]
    cut: list[int]
    cuts: list[Pattern]


def moments(
    algorithm: Algorithm, tree: Tree, samples: int = SAMPLES, seed: int = 0, before: Tree | None = None
) -> Moments:
    """Exact moments of an algorithm's gradient; above 200,000 outcomes, those of ``samples`` sampled groups.

    Args:
        algorithm: with the policy and the temperature that the tree was grown from. With a float64 policy the result is
            exact up to rounding.
        tree: of the task.
        samples: groups to sample if there is too much to enumerate.
        seed: of these samples.
        before: of the weights that sampled the responses; None takes ``tree``, those in training. Only for algorithms
            that need no log-probabilities for their advantages. An algorithm that corrects its sampler takes it for
            that, others for the weights before a step.

    Raises:
        UsageError: the algorithm trains on demonstrations, or its loss has no term ``policy``.
    """
    branches = _branches(algorithm, before or tree)
    exact = branches is not None
    if branches is not None:
        rollouts, probability = _outcomes(algorithm, before or tree, branches)
    else:
        assert before is None, "too many outcomes to enumerate"
        rollouts = _sampled(algorithm, tree, samples, seed)
        probability = torch.full((samples,), 1 / samples, dtype=torch.float64)
    n = len(probability)
    weights = _edge_weights(algorithm, tree, rollouts, before)
    mean, gram = probability @ weights, tree.gram()
    square = probability @ ((weights @ gram) * weights).sum(1)
    trace = float(square - mean @ gram @ mean) * (1 if exact else n / (n - 1))
    mean = mean.view_as(tree.q)
    tokens = probability @ weights.new_zeros(n).index_add(0, rollouts.group, rollouts.mask.sum(1).to(weights))
    return Moments(tree.gradient(mean), mean, max(trace, 0.0), float(tokens), n, exact)


def enumerable(algorithm: Algorithm, tree: Tree) -> bool:
    """Whether there are at most 200,000 outcomes, so that :func:`moments` are exact."""
    return _branches(algorithm, tree) is not None


def cut_chances(plan: SamplingPlan, tree: Tree) -> Tensor:
    """The probability that the plan cuts each leaf before each token: [S, T]."""
    ids, lengths = tree.ids, tree.lengths
    if plan.cuts is None:
        return torch.zeros(ids.shape, dtype=torch.float64)
    chances = plan.cuts.chances_in_turns(ids, tree.own, tree.along(tree.entropy, ids, lengths))
    chances[:, 0] = plan.fork_root
    return chances


def _branches(algorithm: Algorithm, tree: Tree) -> list[Branch] | None:
    """Everything that one sample with its continuations can be; None where that makes too many outcomes."""
    plan, k = algorithm.plan, algorithm.plan.continuations
    if plan.demonstrations:
        raise UsageError("model: it trains on demonstrations, which no policy samples, so there is nothing to verify")
    probability, lengths, width = tree.probability(), tree.lengths, tree.ids.shape[1]
    chance, words, p = cut_chances(plan, tree).tolist(), tree.ids.tolist(), probability.tolist()
    below: dict[tuple[int, ...], list[int]] = {}  # leaves by prefix
    for leaf, word in enumerate(words):
        for cut in range(int(lengths[leaf])):
            below.setdefault(tuple(word[:cut]), []).append(leaf)

    def continuations(prefix: tuple[int, ...], inherited: Pattern) -> list[tuple[float, int, Pattern]]:
        """A continuation of a prefix: its probability, its leaf and where the rule cuts it."""
        total, cut, found = sum(p[leaf] for leaf in below[prefix]), len(prefix), []
        for leaf in below[prefix]:
            # where it is cut matters to reuse alone
            behind = _patterns(chance[leaf][cut + 1 :]) if plan.reuse else [(1.0, (False,) * (width - cut - 1))]
            found += [(p[leaf] / total * q, leaf, inherited[: cut + 1] + pattern) for q, pattern in behind]
        return found

    branches: list[Branch] = []
    for leaf, word in enumerate(words):
        for q, pattern in _patterns(chance[leaf]):
            cuts = [t for t in range(width) if pattern[t]] if k else []
            forks = [(cut, continuations(tuple(word[:cut]), pattern)) for cut in cuts]
            more = math.prod(len(options) ** k for _, options in forks)
            if (len(branches) + more) ** plan.samples > MOST_OUTCOMES:
                return None
            for chosen in itertools.product(*(options for _, options in forks for _ in range(k))):
                branches.append(
                    Branch(
                        p[leaf] * q * math.prod(c[0] for c in chosen),
                        [leaf, *(c[1] for c in chosen)],
                        [0, *(cut for cut in cuts for _ in range(k))],
                        [pattern, *(c[2] for c in chosen)],
                    )
                )
    return branches


def _patterns(chances: list[float]) -> list[tuple[float, Pattern]]:
    """Every way that independent cuts can fall, with its probability."""
    options = [[(c, True)] * (c > 0) + [(1 - c, False)] * (c < 1) for c in chances]
    return [(math.prod(c for c, _ in way), tuple(b for _, b in way)) for way in itertools.product(*options)]


def _outcomes(algorithm: Algorithm, tree: Tree, branches: list[Branch]) -> tuple[Rollouts, Tensor]:
    """All sets of rollouts of a prompt as the groups of one scored table, ordered as a sampler's, and their chances."""
    samples = algorithm.plan.samples
    probes, likely = _greedy(tree) if algorithm.plan.greedy else (torch.zeros(1, dtype=torch.long), torch.ones(1))
    chosen = torch.cartesian_prod(*[torch.arange(len(branches))] * samples, torch.arange(len(probes)))
    chosen, probe = chosen[:, :samples], chosen[:, samples]
    probability = torch.tensor([b.probability for b in branches], dtype=torch.float64)[chosen].prod(1) * likely[probe]
    sizes = torch.tensor([len(b.leaves) for b in branches])
    first = sizes.cumsum(0) - sizes  # of a branch, among the rows of all branches
    leaves = torch.tensor([leaf for b in branches for leaf in b.leaves])
    cut = torch.tensor([c for b in branches for c in b.cut])
    cuts = torch.tensor([pattern for b in branches for pattern in b.cuts])

    count = sizes[chosen.flatten()]  # rows of each sample of each outcome
    starts = count.cumsum(0) - count
    own = starts.repeat_interleave(count)  # the table's row of each row's sample
    row = torch.arange(len(own)) - own + first[chosen.flatten()].repeat_interleave(count)
    group = torch.arange(len(chosen)).repeat_interleave(samples).repeat_interleave(count)
    origin = torch.where(torch.arange(len(own)) == own, -1, own)
    leaf, cut, cuts = leaves[row], cut[row], cuts[row]
    greedy = torch.zeros_like(origin, dtype=torch.bool)
    if algorithm.plan.greedy:
        n = len(chosen)
        leaf, group = torch.cat([leaf, probes[probe]]), torch.cat([group, torch.arange(n)])
        cut, origin = torch.cat([cut, torch.zeros(n, dtype=torch.long)]), torch.cat([origin, torch.full((n,), -1)])
        cuts, greedy = torch.cat([cuts, torch.zeros_like(cuts[:n])]), torch.cat([greedy, greedy.new_ones(n)])
    # a prompt's samples, its greedy probe, the next prompt's; continuations behind all of them
    order = torch.argsort((origin >= 0) * 2 * len(chosen) + 2 * group + greedy, stable=True)
    place = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))
    table = tree.rollouts(leaf[order])
    table.group, table.cut = group[order], cut[order]
    table.origin = torch.where(origin < 0, -1, place[origin])[order]
    table.mask &= ~response_mask(table.cut, table.mask.shape[1])
    table.trained = ~greedy[order] & ((table.origin < 0) | algorithm.plan.reuse)
    table.examples = table.examples * len(chosen)
    if algorithm.plan.cuts is not None:
        table.cuts = cuts[order]
    return table, probability


def _greedy(tree: Tree) -> tuple[Tensor, Tensor]:
    """The leaves that the policy's most probable tokens lead to, and how likely an environment makes each of them."""
    ids, lengths, own = tree.ids, tree.lengths, tree.own
    follows = (tree.along(tree.logprobs.argmax(1), ids, lengths) == ids) | ~own
    leaves = follows.all(1).nonzero().squeeze(1)
    said = torch.where(own, 0.0, tree.along(tree.logprobs, ids, lengths))
    return leaves, said[leaves].sum(1).exp()


def _sampled(algorithm: Algorithm, tree: Tree, groups: int, seed: int) -> Rollouts:
    if spoken_at(tree.task):
        raise UsageError(f"model: too many outcomes of {type(tree.task).__name__} to enumerate; take fewer samples")
    streams = [(seed, group) for group in range(groups)]
    table = LocalSampler(ROWS).sample(algorithm.behaviour, [tree.prompt] * groups, algorithm.plan, streams)
    table.rewards = tree.task.returns(table.response_ids, table.lengths)
    table.examples = [tree.task.prompts("train")[0]] * groups
    return table


def _edge_weights(algorithm: Algorithm, tree: Tree, rollouts: Rollouts, before: Tree | None = None) -> Tensor:
    """For each group: the weight of each edge's psi in its gradient, [Z, E].

    All groups go through the algorithm as the prompts of one iteration, unless one of seven comes out otherwise by
    itself: an algorithm that mixes prompts (batch whitening) gets one prompt an iteration.
    """
    together = _weights_of(algorithm, tree, rollouts, before)
    n = len(together)
    for group in torch.linspace(0, n - 1, min(n, 7)).long().tolist():
        alone = _weights_of(algorithm, tree, _group(rollouts, group), before)
        if not torch.allclose(alone[0], together[group], rtol=1e-9, atol=1e-12):
            return torch.cat([_weights_of(algorithm, tree, _group(rollouts, g), before) for g in range(n)])
    return together


def _weights_of(algorithm: Algorithm, tree: Tree, rollouts: Rollouts, before: Tree | None) -> Tensor:
    groups = len(rollouts.examples)
    behind = None if before is None else before.along(before.logprobs, rollouts.response_ids, rollouts.lengths)
    corrected = algorithm.correct_sampler != "off"
    if corrected:
        rollouts.sampler_logprobs = behind
    algorithm.prepare(rollouts, ROWS)
    if behind is not None and not corrected:
        rollouts.old_logprobs = behind
    trained = rollouts.select(rollouts.trained)
    with torch.no_grad():
        every = torch.arange(len(trained)).split(ROWS)
        parts = [algorithm.policy(trained.select(rows), tree.temperature) for rows in every]
    logprobs = torch.cat(parts).requires_grad_()
    with torch.enable_grad():
        terms = algorithm.loss(trained, logprobs)
    if "policy" not in terms:
        raise UsageError(
            f"model: the loss of {type(algorithm).__name__} has no term 'policy'; give its main term this name"
        )
    descent = (
        torch.autograd.grad(terms["policy"], logprobs)[0] * groups
    )  # the mean over groups is the training gradient
    edges = tree.edges(trained.response_ids, trained.lengths)
    there = edges >= 0
    where = trained.group[:, None].expand_as(edges)[there], edges[there]
    return descent.new_zeros(groups, tree.q.numel()).index_put(where, -descent[there], accumulate=True)


def _group(rollouts: Rollouts, group: int) -> Rollouts:
    """One prompt's rows as a table of their own."""
    rows = (rollouts.group == group).nonzero().squeeze(1)
    table = rollouts.select(rows)
    table.group, table.examples = torch.zeros_like(table.group), rollouts.examples[group : group + 1]
    table.origin = torch.where(table.origin < 0, -1, torch.searchsorted(rows, table.origin))
    return table
