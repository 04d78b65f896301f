"""Trees in which each token is read once, beside rows read whole, and iterations that train on continuations."""

from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Line, fit, problems, seconds
from lit_rl.algorithms import GRPO, Algorithm, TRePO
from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy
from lit_rl.policy.pieces import of_logits
from lit_rl.policy.reading import whole_inputs
from lit_rl.policy.tree import lay_out
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, SamplingPlan

ROUNDS, ITERATIONS = 7, 5
GROUPS = {"embedded": (8, 64, 2.2), "embedded-mid": (4, 160, 1.7)}  # prompts, most tokens of a response, target
CUTS = Stride(12)  # responses have 46 tokens, so three continue each
PROMPTS, SAMPLES, TOKENS = 32, 4, 8192


def reading() -> list[Line]:
    lines = []
    for name, (prompts, most, target) in GROUPS.items():
        label = f"forward and backward, {prompts} groups of 8, {name}: rows read whole"
        lines.append(_update(label, CausalPolicy(name), prompts, SamplingPlan(8, max_new_tokens=most), target))
    plan = SamplingPlan(SAMPLES, max_new_tokens=64, cuts=CUTS, continuations=2, reuse=True)
    lines.append(_update("forward and backward, TRePO with reuse (M = 3, K = 2): rows", CausalPolicy(), 4, plan, 2.2))
    grpo, trepo = (_iteration(each) for each in (GRPO(samples=SAMPLES, max_new_tokens=64), _trepo()))
    name = f"TRePO with reuse (M = 3, K = 2), an iteration of {PROMPTS * SAMPLES} samples: GRPO"
    return [*lines, Line(name, trepo, grpo, "s", grpo / trepo, 1 / 1.6)]


def trees() -> list[dict[str, Any]]:
    """What trees can save at most: the tokens that are read, and what logits take, which are the same for rows."""
    found = []
    for name, (prompts, most, _) in GROUPS.items():
        policy = CausalPolicy(name)
        rollouts = _sampled(policy, prompts, SamplingPlan(8, max_new_tokens=most))
        head = policy.model.get_output_embeddings()
        ids = rollouts.response_ids[rollouts.mask]

        def logits(head: Any = head, ids: Tensor = ids) -> None:
            states = torch.randn(len(ids), head.in_features, requires_grad=True)
            of_logits(head(states), ids, False)[0].sum().backward()

        logits()
        rows, tree = whole_inputs(rollouts)["input_ids"].numel(), lay_out(rollouts).input_ids.numel()
        spent = median(seconds(logits) for _ in range(ROUNDS))
        found.append({"model": name, "row_tokens": rows, "tree_tokens": tree, "logits_s": spent})
    return found


def _trepo() -> Algorithm:
    return TRePO(samples=SAMPLES, max_new_tokens=64, cuts=CUTS, continuations=2, reuse=True)


def _sampled(policy: CausalPolicy, prompts: int, plan: SamplingPlan) -> Rollouts:
    return LocalSampler().sample(policy, problems(policy, prompts)[1], plan, [(i,) for i in range(prompts)])


def _iteration(algorithm: Algorithm) -> float:
    return median(fit(algorithm, PROMPTS, PROMPTS * SAMPLES, ITERATIONS, tokens=TOKENS))


def _update(label: str, policy: CausalPolicy, prompts: int, plan: SamplingPlan, target: float) -> Line:
    """A forward and backward pass over whole groups, at the lengths that responses have."""
    rollouts = _sampled(policy, prompts, plan)

    def read() -> None:
        policy(rollouts, 1.0).sum().backward()

    def rows() -> None:
        _of_whole_rows(policy, rollouts).sum().backward()

    for work in (read, rows):
        work()
    pairs = [(seconds(read), seconds(rows)) for _ in range(ROUNDS)]
    ours, peer = (median(values) for values in zip(*pairs, strict=True))
    return Line(label, ours, peer, "s", median(b / a for a, b in pairs), target)


def _of_whole_rows(policy: CausalPolicy, rollouts: Rollouts) -> Tensor:
    """Log-probabilities [N, T] by transformers' own forward pass."""
    width = rollouts.response_ids.shape[1]
    logits = policy.model(**whole_inputs(rollouts), use_cache=False, logits_to_keep=width + 1).logits[:, :-1]
    return (
        of_logits(logits.flatten(0, 1), rollouts.response_ids.flatten(), False)[0].view_as(rollouts.mask)
        * rollouts.mask
    )
