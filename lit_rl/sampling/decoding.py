"""Token by token: a batch of rows with their KV cache, decoded to their ends, and forked from what it leaves behind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import pad_left
from lit_rl.sampling.base import SamplingPlan
from lit_rl.sampling.cache import RowCache
from lit_rl.sampling.responses import Responses


@dataclass
class Batch:
    """Rows decoded together. Those that are done leave the cache's view and stand behind the others."""

    cache: RowCache
    logits: Tensor  # [B, V] of the next token
    mask: (
        Tensor  # [B, slots] bool: what of the cache belongs to the row; slots filled since the last fill() are missing
    )
    row: Tensor  # [B] of the responses

    def fill(self, written: Tensor) -> None:
        """Adds the slots that decoding has filled: for each row of the responses, ``written`` [n] tokens but the last.

        The last one was not fed, or for nothing.
        """
        new = max(0, self.cache.slots - self.mask.shape[1])
        fed = torch.arange(new, device=self.mask.device) < (written[self.row] - 1)[:, None]
        self.mask = torch.cat([self.mask, fed], 1)


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
        raise diverged()
    cache.batch_repeat_interleave(copies)
    return _copies(cache, logits, mask, copies)


def diverged() -> UsageError:
    """What a policy whose numbers are NaN is told as."""
    return UsageError(
        "model.learning_rate: the policy's logits are not numbers (NaN), so its weights have diverged, or were broken "
        "before training; lower it, or take another model.policy.path or model.start"
    )


def decode(
    policy: CausalPolicy, batch: Batch, out: Responses, plan: SamplingPlan, progress: Callable[[int], None]
) -> None:
    """Writes the batch's rows to their ends; a row that is done is computed no further."""
    cache, row, mask = batch.cache, batch.row, batch.mask
    position, logits = mask.sum(1), batch.logits
    for step in count():
        some = row[: len(logits)]
        at = out.lengths[some]
        greedy = out.greedy[some] if plan.greedy else None
        token = choose(logits, out.uniforms[some, at], greedy, plan.temperature)
        out.ids[some, at] = token
        if plan.cuts is not None and plan.cuts.needs_entropy:
            out.entropy[some, at] = entropy_of(logits, plan.temperature)
        out.lengths[some] = at + 1
        out.finished[some] = torch.isin(token, policy.stop_ids)
        alive = ~out.finished[some] & (at + 1 < out.limits[some])
        progress(step + 1)
        if not (left := int(alive.sum())):
            break
        if left < len(alive):
            token = token[leave(cache, alive, row, mask, position)[:left]]
        filled = torch.cat([mask[:left], mask.new_ones(left, step + 1)], 1)
        logits = forward(policy.model, cache, token[:, None], filled, position[:left, None])
        position += 1


def leave(cache: RowCache, alive: Tensor, *columns: Tensor) -> Tensor:
    """Moves the rows that are ``alive`` [B] before the others, in the cache's view and in what else has a place for
    each; returns the order [B] in which rows now stand."""
    order = cache.leave(alive)
    for column in columns:
        column[: len(order)] = column[order]
    return order


def hear(policy: CausalPolicy, batch: Batch, out: Responses, rows: Tensor, heard: Sequence[int], steps: int) -> Batch:
    """The batch with some of its rows in view again, behind what was said to them; all others are done.

    A row's last own token, which was not fed, is fed before what was said. Nothing else is.

    Args:
        rows: [F] of the responses, that go on.
        heard: the number of tokens that each has at its end, and has not written itself.
        steps: tokens that a row may write behind that.

    Raises:
        UsageError: the model's cache can't take up a row that has left, or would forget.
    """
    _check_cache(batch.cache, batch.mask.shape[1] + 1 + max(heard) + steps, "several turns")
    counts = dict(zip(rows.tolist(), heard, strict=True))
    order = batch.cache.bring_back(torch.isin(batch.row, rows), batch.mask)
    row, mask = batch.row[order], batch.mask[order]
    some = row[: len(rows)]
    ends = zip(some.tolist(), out.ids[some].tolist(), out.lengths[some].tolist(), strict=True)
    fed = [ids[length - counts[each] - 1 : length] for each, ids, length in ends]
    ids, is_fed = (x.to(mask.device) for x in pad_left(fed, policy.pad_id))
    position = mask[: len(rows)].sum(1, keepdim=True) + is_fed.cumsum(1) - 1
    mask = torch.cat([mask, mask.new_zeros(len(mask), ids.shape[1])], 1)
    mask[: len(rows), -ids.shape[1] :] = is_fed
    logits = forward(policy.model, batch.cache, ids, mask[: len(rows)], position.clamp(min=0))
    return Batch(batch.cache, logits, mask, row)


def fork(
    policy: CausalPolicy,
    batch: Batch,
    which: Tensor,
    kept: Tensor,
    token: Tensor,
    copies: int,
    steps: int,
    keep: bool = False,
) -> Batch:
    """``copies`` rows of each of some prefixes of a decoded batch's rows; no prefix is fed again.

    The cache is gathered and what lies behind a prefix masked. Its last token alone is fed, for the logits behind it.

    Args:
        batch: with all slots in its mask.
        which: [F] rows of the batch.
        kept: [F] tokens of a prefix, prompt and all, its last token left out.
        token: [F] that last token.
        copies: rows of each (K).
        steps: tokens that a continuation may have.
        keep: rows that are done can be brought back.

    Raises:
        UsageError: the model's cache can't be cut, or would forget, for its attention slides over fewer slots than it
            takes.
    """
    mask = batch.mask[which]
    place, kept = mask.cumsum(1), kept[:, None]
    width = int((place <= kept).sum(1).max())  # up to the slot that the last token takes
    _check_cache(batch.cache, width + 1 + steps, "continuations")  # gaps before a continuation included
    mask = (mask & (place <= kept))[:, :width]
    cache = batch.cache.fork(which, mask, copies, keep)
    position = mask.sum(1, keepdim=True)
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    logits = forward(policy.model, cache, token[:, None], mask, position)
    cache.spread()
    return _copies(cache, logits, mask, copies)


def _check_cache(cache: RowCache, slots: int, what: str) -> None:
    """That the cache holds all of so many slots, each token's in its own."""
    if slots > cache.window:
        raise UsageError(
            f"model.policy.path: the model has a sliding window of {cache.window} tokens, and {what} take up to "
            f"{slots}, gaps between rows that are decoded together included; lower data.sampler.batch_rows, "
            "model.samples or model.max_new_tokens, or take another model"
        )
    if not cache.cuttable:
        raise UsageError(
            "model.policy.path: the model's layers are not all attention, and what others remember of a prefix can't "
            f"be taken from a longer one; {what} take another model"
        )


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
