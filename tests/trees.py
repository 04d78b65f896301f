"""Tables with continuations, and how many tokens their trees have."""

from collections.abc import Iterable

from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, SamplingPlan

FORKED = SamplingPlan(samples=2, max_new_tokens=24, cuts=Stride(8), continuations=2, reuse=True)
TEXTS = ["12+3=", "Ann has 12 pens."]


def sample(policy: CausalPolicy, prompts: list[list[int]], plan: SamplingPlan) -> Rollouts:
    return LocalSampler().sample(policy, prompts, plan, [(i,) for i in range(len(prompts))])


def forked(policy: CausalPolicy) -> Rollouts:
    """Two samples to each of two prompts, and continuations of them."""
    prompts = [policy.encode_prompt([{"role": "user", "content": text}]) for text in TEXTS]
    rollouts = sample(policy, prompts, FORKED)
    assert len(rollouts) > 12 and rollouts.mask[rollouts.origin >= 0].any()
    return rollouts


def distinct_tokens(rollouts: Rollouts, rows: Iterable[int] | None = None) -> int:
    """How many tokens of some rows a chosen token comes after, those that rows share once: counted one by one."""
    found = set()
    for i in range(len(rollouts)) if rows is None else rows:
        chosen = rollouts.mask[i].nonzero().flatten().tolist()
        if not chosen:
            continue
        group, row, origin = (int(x[i]) for x in (rollouts.group, rollouts.row, rollouts.origin))
        cut = int(rollouts.cut[i]) if origin >= 0 else 0
        found |= {("prompt", group, t) for t in range(int(rollouts.prompt_mask[i].sum()))}
        found |= {("response", origin if t < cut else row, t) for t in range(chosen[-1])}
    return len(found)
