"""Token by token: a batch of rows with their KV cache, decoded to their ends, and forked from what it leaves behind."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import pad_left
from lit_rl.sampling.base import SamplingPlan


@dataclass
class Responses:
    """Responses in writing: n rows of T columns."""

    ids: Tensor  # [n, T]
    lengths: Tensor  # [n] tokens written so far
    finished: Tensor  # [n] bool: EOS was written
    greedy: Tensor  # [n] bool
    uniforms: Tensor  # [n, T] the random number of each token
    entropy: Tensor  # [n, T] of pi(. | s_t) in nats, where the plan's cuts need it
    origin: Tensor  # [n] the row it was forked from, or -1
    cut: Tensor  # [n] tokens it inherits
    cuts: Tensor  # [n, T] bool: where the plan's rule cuts it


@dataclass
class Batch:
    """Rows decoded together."""

    cache: DynamicCache
    logits: Tensor  # [B, V] of the next token
    mask: Tensor  # [B, slots] bool: what of the cache belongs to the row
    row: Tensor  # [B] of the responses


@dataclass
class Shelf:
    """The cache of rows that left their batch."""

    layers: list[tuple[Tensor, Tensor]]  # keys and values [B, heads, slots, size]
    mask: Tensor  # [B, slots]
    row: Tensor  # [B] of the responses


def prefill(policy: CausalPolicy, prompts: Sequence[Sequence[int]], copies: int) -> Batch:
    """The prompts' cache, each prompt once, then ``copies`` rows of each."""
    ids, mask = (x.to(policy.device) for x in pad_left(prompts, policy.pad_id))
    cache = DynamicCache(config=policy.model.config)
    logits = _forward(policy.model, cache, ids, mask, (mask.long().cumsum(1) - 1).clamp(min=0))
    return _copies(cache, logits, mask, copies)


def decode(
    policy: CausalPolicy,
    batch: Batch,
    out: Responses,
    plan: SamplingPlan,
    compact_below: float,
    shelves: list[Shelf] | None,
    progress: Callable[[int], None],
) -> None:
    """Writes the batch's rows to their ends. Rows that are done leave the batch when fewer than ``compact_below`` live.

    Args:
        shelves: receives the cache of every row; None drops it.
    """
    cache, logits, mask, row = batch.cache, batch.logits, batch.mask, batch.row
    width = out.ids.shape[1]
    alive = ~out.finished[row] & (out.lengths[row] < width)
    for step in range(width):
        at = out.lengths[row].clamp(max=width - 1)
        token = _choose(logits, out.uniforms[row, at], out.greedy[row], plan.temperature)
        out.ids[row, at] = torch.where(alive, token, out.ids[row, at])
        if plan.cuts is not None and plan.cuts.needs_entropy:
            entropy = torch.special.entr((logits.float() / plan.temperature).softmax(-1)).sum(-1)
            out.entropy[row, at] = torch.where(alive, entropy, out.entropy[row, at])
        out.lengths[row] += alive
        out.finished[row] |= alive & torch.isin(token, policy.stop_ids)
        alive = ~out.finished[row] & (out.lengths[row] < width)
        progress(step + 1)
        count = int(alive.sum())
        if count == 0:
            break
        if count < compact_below * len(row):
            if shelves is not None:
                shelves.append(_shelve(cache, mask, row, (~alive).nonzero().squeeze(1)))
            keep = alive.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            row, token, mask, alive = row[keep], token[keep], mask[keep], alive[keep]
        position = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        logits = _forward(policy.model, cache, token[:, None], mask, position)
    if shelves is not None:
        shelves.append(_shelve(cache, mask, row, torch.arange(len(row), device=row.device)))


def fork(
    policy: CausalPolicy, shelf: Shelf, which: Tensor, slots: Tensor, token: Tensor, copies: int, steps: int
) -> Batch:
    """``copies`` rows of each of some prefixes of the shelf's rows; no prefix is fed again.

    The cache is gathered and what lies behind a prefix masked. Its last token alone is fed, for the logits behind it.

    Args:
        which: [F] rows of the shelf.
        slots: [F] of the cache that a prefix takes, its last token left out.
        token: [F] that last token.
        copies: rows of each (K).
        steps: tokens that a continuation may have.

    Raises:
        UsageError: the model's cache would forget, for its attention slides over fewer slots than it takes.
    """
    width = int(slots.max())
    cache = DynamicCache(config=policy.model.config)
    window = min((getattr(layer, "sliding_window", None) or sys.maxsize for layer in cache.layers), default=sys.maxsize)
    if width + 1 + steps > window:  # it forgets slots, gaps between a prefix and its continuation included
        raise UsageError(
            f"model.policy.path: the model has a sliding window of {window} tokens, and continuations take up to "
            f"{width + 1 + steps}; lower model.max_new_tokens or take another model"
        )
    for layer, (keys, values) in enumerate(shelf.layers):
        cache.update(keys[which, :, :width], values[which, :, :width], layer)
    mask = shelf.mask[which, :width] & (torch.arange(width, device=slots.device) < slots[:, None])
    position = mask.sum(1, keepdim=True)
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    logits = _forward(policy.model, cache, token[:, None], mask, position)
    return _copies(cache, logits, mask, copies)


def _copies(cache: DynamicCache, logits: Tensor, mask: Tensor, copies: int) -> Batch:
    cache.batch_repeat_interleave(copies)
    logits, mask = logits.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
    return Batch(cache, logits, mask, torch.arange(len(mask), device=mask.device))


def _shelve(cache: DynamicCache, mask: Tensor, row: Tensor, which: Tensor) -> Shelf:
    layers: Any = cache.layers
    return Shelf([(each.keys[which], each.values[which]) for each in layers], mask[which], row[which])


def _forward(model: Any, cache: DynamicCache, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """The logits behind the last of ``ids``: [B, V]."""
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
    """One token a row [B] from logits [B, V]: the first whose cumulative probability exceeds the row's uniform."""
    logits = logits.float()
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    total = cumulative[:, -1]
    below = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, below[:, None], right=True).squeeze(1)
    return torch.where(greedy, logits.argmax(-1), drawn)
