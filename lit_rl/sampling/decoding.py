"""Token by token: a batch of rows with their KV cache, decoded to their ends, and forked from what it leaves behind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import pad_left
from lit_rl.sampling.base import SamplingPlan
from lit_rl.sampling.cache import RowCache


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
    """Rows decoded together. Those that are done leave the cache's view and stand behind the others."""

    cache: RowCache
    logits: Tensor  # [B, V] of the next token
    mask: Tensor  # [B, slots] bool: what of the cache belonged to the row at the start; slots filled since do
    row: Tensor  # [B] of the responses


def prefill(policy: CausalPolicy, prompts: Sequence[Sequence[int]], copies: int, keep: bool) -> Batch:
    """The prompts' cache, each prompt once, then ``copies`` rows of each.

    Args:
        keep: rows that are done can still be forked.

    Raises:
        UsageError: the model's logits are NaN.
    """
    ids, mask = (x.to(policy.device) for x in pad_left(prompts, policy.pad_id))
    cache = RowCache(policy.model.config, keep)
    logits = forward(policy.model, cache, ids, mask, (mask.long().cumsum(1) - 1).clamp(min=0))
    if logits.isnan().any():  # no token can be drawn
        raise UsageError(
            "model.learning_rate: the policy's logits are not numbers (NaN), so its weights have diverged, or were "
            "broken before training; lower it, or take another model.policy.path or model.start"
        )
    cache.batch_repeat_interleave(copies)
    return _copies(cache, logits, mask, copies)


def decode(
    policy: CausalPolicy, batch: Batch, out: Responses, plan: SamplingPlan, progress: Callable[[int], None]
) -> None:
    """Writes the batch's rows to their ends; a row that is done is computed no further."""
    cache, row, mask, width = batch.cache, batch.row, batch.mask, out.ids.shape[1]
    position, logits = mask.sum(1), batch.logits
    for step in range(width):
        some = row[: len(logits)]
        at = out.lengths[some]
        greedy = out.greedy[some] if plan.greedy else None
        token = choose(logits, out.uniforms[some, at], greedy, plan.temperature)
        out.ids[some, at] = token
        if plan.cuts is not None and plan.cuts.needs_entropy:
            out.entropy[some, at] = entropy_of(logits, plan.temperature)
        out.lengths[some] = at + 1
        out.finished[some] = torch.isin(token, policy.stop_ids)
        alive = ~out.finished[some] & (at + 1 < width)
        progress(step + 1)
        if not (count := int(alive.sum())):
            break
        if count < len(alive):
            token = token[leave(cache, alive, row, mask, position)[:count]]
        filled = torch.cat([mask[:count], mask.new_ones(count, step + 1)], 1)
        logits = forward(policy.model, cache, token[:, None], filled, position[:count, None])
        position += 1


def leave(cache: RowCache, alive: Tensor, *columns: Tensor) -> Tensor:
    """Moves the rows that are ``alive`` [B] before the others, in the cache's view and in what else has a place for
    each; returns the order [B] in which rows now stand."""
    order = cache.leave(alive)
    for column in columns:
        column[: len(order)] = column[order]
    return order


def fork(
    policy: CausalPolicy, batch: Batch, which: Tensor, slots: Tensor, token: Tensor, copies: int, steps: int
) -> Batch:
    """``copies`` rows of each of some prefixes of a decoded batch's rows; no prefix is fed again.

    The cache is gathered and what lies behind a prefix masked. Its last token alone is fed, for the logits behind it.

    Args:
        which: [F] rows of the batch.
        slots: [F] of the cache that a prefix takes, its last token left out.
        token: [F] that last token.
        copies: rows of each (K).
        steps: tokens that a continuation may have.

    Raises:
        UsageError: the model's cache can't be cut, or would forget, for its attention slides over fewer slots than it
            takes.
    """
    width, window = int(slots.max()), batch.cache.window
    if width + 1 + steps > window:  # gaps between a prefix and its continuation included
        raise UsageError(
            f"model.policy.path: the model has a sliding window of {window} tokens, and continuations take up to "
            f"{width + 1 + steps}; lower model.max_new_tokens or take another model"
        )
    prompt = batch.mask[which, :width]
    mask = torch.nn.functional.pad(prompt, (0, width - prompt.shape[1]), value=True)
    mask &= torch.arange(width, device=slots.device) < slots[:, None]
    cache = batch.cache.fork(which, mask, copies)
    if cache is None:
        raise UsageError(
            "model.policy.path: the model's layers are not all attention, and what others remember of a prefix can't "
            "be taken from a longer one; continuations take another model"
        )
    position = mask.sum(1, keepdim=True)
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    logits = forward(policy.model, cache, token[:, None], mask, position)
    cache.spread()
    return _copies(cache, logits, mask, copies)


def _copies(cache: RowCache, logits: Tensor, mask: Tensor, copies: int) -> Batch:
    logits, mask = logits.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
    return Batch(cache, logits, mask, torch.arange(len(mask), device=mask.device))


def forward(model: Any, cache: RowCache, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """The logits behind the last of ``ids``: [B, V].

    Args:
        mask: [B, slots], or [B, 1, 1, slots] as attention takes it.
    """
    out = model(
        input_ids=ids,
        attention_mask=mask.long() if mask.ndim == 2 else mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.logits[:, -1]


def choose(logits: Tensor, uniforms: Tensor, greedy: Tensor | None, temperature: float) -> Tensor:
    """One token a row [B] from logits [B, V]: the first whose cumulative probability exceeds the row's uniform.

    Args:
        greedy: [B] rows that take the likeliest instead; None has none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cumulative = (logits if temperature == 1 else logits / temperature).softmax(-1).cumsum(-1)
    total = cumulative[:, -1]
    below = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, below[:, None], right=True).squeeze(1)
    return drawn if greedy is None else torch.where(greedy, logits.argmax(-1), drawn)


def entropy_of(logits: Tensor, temperature: float) -> Tensor:
    """Of pi(. | s_t) in nats: [B]."""
    return torch.special.entr((logits.float() / temperature).softmax(-1)).sum(-1)
