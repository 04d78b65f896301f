"""The certificate: compares the exact expectation of each estimator with what theory says it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lit_rl.algorithms.base import Algorithm
from lit_rl.exact.expectation import Moments, moments
from lit_rl.exact.formulas import UNBIASED, Formula
from lit_rl.exact.tree import Tree, grow
from lit_rl.policy import CausalPolicy, TabularPolicy
from lit_rl.tasks import PositionTask

TOLERANCE = 1e-9  # of an exact expectation, relative to |grad J|
STANDARD_ERRORS = 4  # of a sampled one
A_BIAS = 1e-6  # what must at least be seen of a bias without a formula

Build = Callable[..., Algorithm]  # takes policy, max_new_tokens and reference


@dataclass(frozen=True)
class Claim:
    """The claim that an estimator on a task has a certain expectation."""

    estimator: str
    build: Build
    task: PositionTask
    expected: Formula = UNBIASED
    policy: Callable[[PositionTask], CausalPolicy] | None = None  # None: a table of random logits
    before: Callable[[PositionTask], CausalPolicy] | None = None  # that sampled; None: the policy itself


@dataclass(frozen=True)
class Certificate:
    """What was found. |.| is the norm over all parameters, g the exact gradient of J = E[r], and G = E[estimate].

    Attributes:
        relative_bias: |G - g| / |g|.
        cosine: of G and g; None if G is 0.
        trace_cov: trace of the covariance of one prompt's gradient.
        tokens: sampled for one prompt on average, greedy responses and continuations included.
        relative_variance: trace_cov / |G|^2; None if G is 0.
        expected: "unbiased", the formula of the expectation, or "no closed form".
        distance_to_expected: |G - formula| / |g|; None without a formula.
        standard_error: of the two distances, if G was estimated from samples; None if it is exact.
        outcomes: the number of sets of rollouts that were enumerated or sampled.
        holds: the expectation agrees with the formula; without a formula, that there is a bias.
    """

    estimator: str
    task: str
    relative_bias: float
    cosine: float | None
    trace_cov: float
    tokens: float
    relative_variance: float | None
    expected: str
    distance_to_expected: float | None
    standard_error: float | None
    outcomes: int
    holds: bool


def certify(claim: Claim) -> Certificate:
    """Tests a claim, see :func:`judge`."""
    tree, found = examine(claim)
    return judge(claim, tree, found)


def examine(claim: Claim) -> tuple[Tree, Moments]:
    """The task's tree under the claim's policy, and the moments of its estimator."""
    task = claim.task
    policy = random_policy(task) if claim.policy is None else claim.policy(task)
    algorithm = claim.build(policy=policy, max_new_tokens=task.length, reference=False)
    algorithm.policy.load_state_dict(policy.state_dict())  # built around its reference, it may have other weights
    tree = grow(policy, task, algorithm.plan.temperature)
    before = None if claim.before is None else grow(claim.before(task), task, algorithm.plan.temperature)
    return tree, moments(algorithm, tree, before=before)


def judge(claim: Claim, tree: Tree, found: Moments) -> Certificate:
    """Compares moments with a claim: within 1e-9 |g|, or within 4 standard errors where G was only sampled.

    Without a formula, the claim holds if the bias is above 1e-6, or above 4 standard errors.
    """
    gradient, mean = tree.gradient(), found.mean
    size, length = float(gradient.norm()), float(mean.norm())
    vanishes = length < TOLERANCE * size
    bias = float((mean - gradient).norm()) / size
    error = None if found.exact else (found.trace_cov / found.outcomes) ** 0.5 / size
    tolerance = TOLERANCE if error is None else STANDARD_ERRORS * error
    distance = None
    if claim.expected.gradient is not None:
        distance = float((mean - claim.expected.gradient(tree)).norm()) / size
    return Certificate(
        estimator=claim.estimator,
        task=describe(claim.task) + ("" if claim.policy is None else ", " + type(tree.policy).__name__),
        relative_bias=bias,
        cosine=None if vanishes else float(mean @ gradient) / size / length,
        trace_cov=found.trace_cov,
        tokens=found.tokens,
        relative_variance=None if vanishes else found.trace_cov / length**2,
        expected=claim.expected.name,
        distance_to_expected=distance,
        standard_error=error,
        outcomes=found.outcomes,
        holds=bias > max(A_BIAS, tolerance) if distance is None else distance <= tolerance,
    )


def random_policy(task: PositionTask) -> TabularPolicy:
    """A table of logits from N(0, 1), the same for the same sizes, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TabularPolicy(task.vocabulary, task.length, task.eos_id is not None, spread=1.0).double()


def describe(task: PositionTask) -> str:
    sizes = f"V={task.vocabulary} T={task.length}"
    return f"{type(task).__name__} {sizes}" + (" EOS" if task.eos_id is not None else "")


def position_shares(tree: Tree, found: Moments) -> list[float]:
    """The share of each g_t that the mean keeps: its part at position t, projected on g_t, over |g_t|."""
    depth, exact = tree.depth, tree.position_gradients()
    kept = [tree.gradient(found.weights * (depth == t)[:, None]) for t in range(tree.task.length)]
    return [float(k @ g / (g @ g)) for k, g in zip(kept, exact, strict=True)]


def penalized(build: Build, coefficient: float) -> Build:
    """The estimator with a KL penalty in its reward, towards the uniform policy."""

    def make(policy: TabularPolicy, **kwargs: Any) -> Algorithm:
        start = TabularPolicy(policy.model.config.vocab_size, kwargs["max_new_tokens"], bool(len(policy.stop_ids)))
        return build(policy=start.double(), **{**kwargs, "reference": True, "kl_coefficient": coefficient})

    return make
