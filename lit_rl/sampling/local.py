"""Sampling in the training process, from the training weights: any causal LM of transformers, CPU or CUDA."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import Rollouts, pad_left, response_mask
from lit_rl.sampling.base import Progress, Sampler, SamplingPlan


class LocalSampler(Sampler):
    """Ancestral sampling with a KV cache, many rows at once.

    A prompt is prefilled once and its cache copied to its rows. Finished rows leave the batch when fewer than
    ``compact_below`` of its rows are alive. Tokens are drawn by inverting the cumulative distribution at a uniform
    number of the row's own stream, so top-p and top-k, which would bias the importance ratio, have no place here.

    Args:
        batch_rows: rows decoded together; bounds the memory of the cache.
        compact_below: share of rows alive under which the batch is compacted.
    """

    def __init__(self, batch_rows: int = 512, compact_below: float = 0.85) -> None:
        self.batch_rows, self.compact_below = batch_rows, compact_below

    @torch.no_grad()
    def sample(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        plan: SamplingPlan,
        streams: Sequence[tuple[int, ...]],
        progress: Progress | None = None,
    ) -> Rollouts:
        rows, steps, device = plan.rows, plan.max_new_tokens, policy.device
        n = len(prompts) * rows
        uniforms = torch.from_numpy(
            np.stack([np.random.default_rng([*s, g]).random(steps, np.float32) for s in streams for g in range(rows)])
        ).to(device)
        probe = torch.tensor([g >= plan.samples for g in range(rows)], device=device).repeat(len(prompts))
        ids = torch.full((n, steps), policy.pad_id, device=device)
        lengths = torch.zeros(n, dtype=torch.long, device=device)
        finished = torch.zeros(n, dtype=torch.bool, device=device)
        batch = max(1, self.batch_rows // rows)  # whole prompts
        chunks = range(0, len(prompts), batch)
        for i, start in enumerate(chunks):
            part = slice(start * rows, (start + batch) * rows)

            def advance(step: int, i: int = i) -> None:
                if progress is not None:
                    progress(i * steps + step, len(chunks) * steps)

            output = ids[part], lengths[part], finished[part]
            self._decode(
                policy, prompts[start : start + batch], rows, uniforms[part], probe[part], plan, output, advance
            )
        width = int(lengths.max())
        prompt_ids, prompt_mask = pad_left(prompts, policy.pad_id)
        return Rollouts(
            prompt_ids=prompt_ids.to(device).repeat_interleave(rows, 0),
            prompt_mask=prompt_mask.to(device).repeat_interleave(rows, 0),
            response_ids=ids[:, :width],
            lengths=lengths,
            mask=response_mask(lengths, width),
            group=torch.arange(len(prompts), device=device).repeat_interleave(rows),
            trained=~probe,
            truncated=~finished,
            examples=[],
        )

    def _decode(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        copies: int,
        uniforms: Tensor,
        greedy: Tensor,
        plan: SamplingPlan,
        output: tuple[Tensor, Tensor, Tensor],
        progress: Any,
    ) -> None:
        """Decodes ``copies`` rows a prompt into ``output``: ids [n, T], lengths [n] and finished [n]."""
        ids, lengths, finished = output
        model, device = policy.model, ids.device
        prompt_ids, mask = (x.to(device) for x in pad_left(prompts, policy.pad_id))
        cache = DynamicCache(config=model.config)
        logits = self._forward(model, cache, prompt_ids, mask, (mask.long().cumsum(1) - 1).clamp(min=0))
        cache.batch_repeat_interleave(copies)
        logits, mask = logits.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
        row = torch.arange(len(ids), device=device)  # of each row of the batch: its row of the output
        for step in range(plan.max_new_tokens):
            token = _choose(logits, uniforms[row, step], greedy[row], plan.temperature)
            ids[row, step] = torch.where(finished[row], ids[row, step], token)
            lengths[row] += ~finished[row]
            finished[row] |= torch.isin(token, policy.stop_ids)
            progress(step + 1)
            alive = ~finished[row]
            count = int(alive.sum())
            if count == 0 or step + 1 == plan.max_new_tokens:
                break
            if count < self.compact_below * len(row):
                keep = alive.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                row, token, mask = row[keep], token[keep], mask[keep]
            position = mask.sum(1, keepdim=True)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = self._forward(model, cache, token[:, None], mask, position)
        progress(plan.max_new_tokens)

    @staticmethod
    def _forward(model: Any, cache: DynamicCache, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        out = model(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]


def _choose(logits: Tensor, uniforms: Tensor, greedy: Tensor, temperature: float) -> Tensor:
    """One token a row [n] from logits [n, V]: the first whose cumulative probability exceeds the row's uniform."""
    logits = logits.float()
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    total = cumulative[:, -1]
    below = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, below[:, None], right=True).squeeze(1)
    return torch.where(greedy, logits.argmax(-1), drawn)
