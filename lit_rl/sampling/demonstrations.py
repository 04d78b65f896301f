"""Demonstrations as rollouts, so that supervised learning runs through the same loop."""

from collections.abc import Sequence

import torch

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import Rollouts, pad_left, response_mask
from lit_rl.sampling.base import SamplingPlan
from lit_rl.tasks.base import Example


def demonstrate(
    policy: CausalPolicy, prompts: Sequence[Sequence[int]], examples: Sequence[Example], plan: SamplingPlan
) -> Rollouts:
    """One row a prompt: the example's column ``demonstration``, EOS behind it, cut at ``plan.max_new_tokens``.

    Raises:
        UsageError: the task has no demonstrations.
    """
    if any("demonstration" not in example for example in examples):
        raise UsageError("data.task has no column 'demonstration': choose another task or another algorithm")
    texts = [[*policy.encode_text(example["demonstration"]), policy.eos_id] for example in examples]
    rows = [ids[: plan.max_new_tokens] for ids in texts]
    lengths = torch.tensor([len(row) for row in rows])
    prompt_ids, prompt_mask = pad_left(prompts, policy.pad_id)
    response_ids = pad_left([row[::-1] for row in rows], policy.pad_id)[0].flip(1)  # padding on the right
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=response_ids,
        lengths=lengths,
        mask=response_mask(lengths, response_ids.shape[1]),
        group=torch.arange(len(rows)),
        origin=torch.full((len(rows),), -1),
        cut=torch.zeros(len(rows), dtype=torch.long),
        trained=torch.ones(len(rows), dtype=torch.bool),
        truncated=torch.tensor([len(ids) > plan.max_new_tokens for ids in texts]),
        examples=[],
    ).to(policy.device)
