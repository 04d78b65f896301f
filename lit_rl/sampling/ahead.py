"""Decoding some steps ahead without a look at what was drawn, so that a step can be replayed as it is."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_rl.policy.causal import CausalPolicy
from lit_rl.sampling.attention import attention_bias
from lit_rl.sampling.base import SamplingPlan
from lit_rl.sampling.cache import RowCache
from lit_rl.sampling.decoding import Batch, choose, entropy_of, forward, leave
from lit_rl.sampling.responses import Responses

STEPS = 32  # a row that is done is computed for so many more at most
Repeat = Callable[[Callable[[], None], int], None]


def decode_ahead(
    policy: CausalPolicy,
    batch: Batch,
    out: Responses,
    plan: SamplingPlan,
    progress: Callable[[int], None],
    repeat: Repeat,
) -> None:
    """:func:`lit_rl.sampling.decoding.decode`, with a look at which rows are done every ``STEPS`` steps alone.

    Args:
        repeat: takes a step so many times.
    """
    cache, row, mask = batch.cache, batch.row, batch.mask
    position, logits, done = mask.sum(1), batch.logits, 0
    while True:
        count = len(logits)
        some, filled = row[:count], mask.new_ones(count, done)
        times = min(STEPS, int((out.limits - out.lengths)[some].max()))
        seen = torch.cat([mask[:count], filled, mask.new_zeros(count, times)], 1)
        ahead = Ahead(policy, cache, plan, out, some, logits, seen, position[:count], times)
        with cache.held(times, ahead.slot):
            repeat(ahead.step, times)
        ahead.write(out, some)
        done += times
        progress(done)
        if not (count := int(ahead.alive.sum())):
            break
        order = leave(cache, ahead.alive, row, mask, position)
        logits = ahead.logits[order[:count]]


class Ahead:
    """Rows on their way, in tensors that stay where they are, so that a step is the same work each time.

    Args:
        some: [B] the rows, of ``out``; the others have one entry for each of them.
        logits: [B, V] of the next token.
        seen: [B, slots] bool: what of the cache belongs to the row, the slots that are held left out.
        position: [B] of the next token.
        times: slots that are held.
    """

    def __init__(
        self,
        policy: CausalPolicy,
        cache: RowCache,
        plan: SamplingPlan,
        out: Responses,
        some: Tensor,
        logits: Tensor,
        seen: Tensor,
        position: Tensor,
        times: int,
    ) -> None:
        self.policy, self.cache, self.plan = policy, cache, plan
        self.logits, self.position = logits.clone(), position
        self.bias = attention_bias(seen[:, None, None], logits.dtype)
        self.slot = torch.full((1,), seen.shape[1] - times, device=seen.device)
        self.ids, self.lengths, self.limits, self.finished, self.entropy = (
            x[some] for x in (out.ids, out.lengths, out.limits, out.finished, out.entropy)
        )
        self.greedy = out.greedy[some] if plan.greedy else None
        self.uniforms, self.alive = out.uniforms[some], torch.ones_like(self.finished)

    def step(self) -> None:
        """One token a row; of those that are done nothing is written."""
        at = self.lengths.clamp(max=self.ids.shape[1] - 1)[:, None]
        token = choose(self.logits, self.uniforms.gather(1, at).squeeze(1), self.greedy, self.plan.temperature)
        self._put(self.ids, at, token)
        if self.plan.cuts is not None and self.plan.cuts.needs_entropy:
            self._put(self.entropy, at, entropy_of(self.logits, self.plan.temperature))
        self.lengths += self.alive
        self.finished |= self.alive & (token[:, None] == self.policy.stop_ids).any(1)
        self.alive &= ~self.finished & (self.lengths < self.limits)
        self.bias.index_fill_(3, self.slot, 0.0)
        self.logits.copy_(forward(self.policy.model, self.cache, token[:, None], self.bias, self.position[:, None]))
        self.position += self.alive
        self.slot += 1

    def write(self, out: Responses, some: Tensor) -> None:
        for name in ("ids", "lengths", "finished", "entropy"):
            getattr(out, name)[some] = getattr(self, name)

    def _put(self, table: Tensor, at: Tensor, values: Tensor) -> None:
        table.scatter_(1, at, torch.where(self.alive[:, None], values[:, None], table.gather(1, at)))
