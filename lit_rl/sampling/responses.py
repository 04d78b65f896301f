"""Responses in writing, and the table that they become: what every sampler here fills in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import Rollouts, pad_left, response_mask
from lit_rl.sampling.base import SamplingPlan

Stream = tuple[int, ...]
CUTS = 1  # behind a row's stream: the stream of its random cuts


@dataclass
class Responses:
    """Responses in writing: n rows of T columns."""

    ids: Tensor  # [n, T]
    lengths: Tensor  # [n] tokens written so far, an environment's included
    limits: Tensor  # [n] tokens that there may be before an environment speaks again
    finished: Tensor  # [n] bool: EOS was written, and the response has ended with it or the turn
    greedy: Tensor  # [n] bool
    uniforms: Tensor  # [n, T] the random number of each token, where the sampler draws by them
    logprobs: Tensor  # [n, T] of each token, where the sampler has probabilities of its own
    entropy: Tensor  # [n, T] of pi(. | s_t) in nats, where the plan's cuts need it
    origin: Tensor  # [n] the row it was forked from, or -1
    cut: Tensor  # [n] tokens it inherits
    cuts: Tensor  # [n, T] bool: where the plan's rule cuts it
    spoken: Tensor  # [n, T] bool: an environment's tokens
    turn_rewards: Tensor  # [n, T] what it paid for a turn, at the turn's last token

    def widen(self, width: int, pad_id: int) -> None:
        """Makes room for ``width`` tokens a row, unless there is."""
        more = width - self.ids.shape[1]
        if more > 0:
            self.ids = pad(self.ids, (0, more), value=pad_id)
            for name in ("uniforms", "logprobs", "entropy", "cuts", "spoken", "turn_rewards"):
                setattr(self, name, pad(getattr(self, name), (0, more)))


def blank(uniforms: Tensor, pad_id: int) -> Responses:
    """A row for each row of random numbers [n, T], on their device, with nothing written."""
    (n, width), device = uniforms.shape, uniforms.device
    return Responses(
        ids=torch.full((n, width), pad_id, device=device),
        lengths=torch.zeros(n, dtype=torch.long, device=device),
        limits=torch.full((n,), width, device=device),
        finished=torch.zeros(n, dtype=torch.bool, device=device),
        greedy=torch.zeros(n, dtype=torch.bool, device=device),
        uniforms=uniforms,
        logprobs=torch.zeros_like(uniforms),
        entropy=torch.zeros_like(uniforms),
        origin=torch.full((n,), -1, device=device),
        cut=torch.zeros(n, dtype=torch.long, device=device),
        cuts=torch.zeros(n, width, dtype=torch.bool, device=device),
        spoken=torch.zeros(n, width, dtype=torch.bool, device=device),
        turn_rewards=torch.zeros_like(uniforms),
    )


def continued(samples: Responses, parent: Tensor, at: Tensor, uniforms: Tensor, pad_id: int) -> Responses:
    """Rows that go on behind the first ``at`` [n] tokens of the samples ``parent`` [n]."""
    width = samples.ids.shape[1]
    prefix, out = response_mask(at, width), blank(uniforms, pad_id)
    out.widen(width, pad_id)
    out.ids = torch.where(prefix, samples.ids[parent], out.ids)
    out.entropy = torch.where(prefix, samples.entropy[parent], out.entropy)
    out.spoken, out.turn_rewards = samples.spoken[parent] & prefix, samples.turn_rewards[parent] * prefix
    out.origin, out.cut, out.lengths = parent, at, at.clone()
    return out


def uniforms_of(names: Sequence[Stream], width: int, device: torch.device) -> Tensor:
    """Random numbers in [0, 1), each row's from its own stream: [n, width]."""
    return torch.from_numpy(np.stack([np.random.default_rng(n).random(width, np.float32) for n in names])).to(device)


def cuts_of(plan: SamplingPlan, out: Responses, names: Sequence[Stream]) -> Tensor:
    """Where the plan's rule cuts the finished responses: [n, T]."""
    if plan.cuts is None:
        return out.cuts
    width = out.ids.shape[1]
    written = response_mask(out.lengths, width) & ~out.spoken
    chances = plan.cuts.chances_in_turns(out.ids, written, out.entropy)
    drawn = bool(((chances > 0) & (chances < 1)).any())
    threshold = uniforms_of([(*name, CUTS) for name in names], width, out.ids.device) if drawn else 0.5
    cuts = chances > threshold
    cuts[:, 0] = plan.fork_root
    return cuts & written & ~out.greedy[:, None]


def cuts_of_continued(plan: SamplingPlan, out: Responses, names: Sequence[Stream], samples: Responses) -> Tensor:
    """The same of continuations, which inherit the cuts of their prefix and the one that they were forked at."""
    width = out.ids.shape[1]
    theirs = pad(samples.cuts[out.origin], (0, width - samples.cuts.shape[1]))
    return torch.where(response_mask(out.cut + 1, width), theirs, cuts_of(plan, out, names))


def table(
    policy: CausalPolicy, prompts: Sequence[Sequence[int]], plan: SamplingPlan, parts: Sequence[Responses], turns: bool
) -> Rollouts:
    """The rollouts of finished responses.

    Args:
        parts: the samples of some prompts after those of others, then the continuations.
        turns: environments spoke.
    """
    widest = max(part.ids.shape[1] for part in parts)
    for part in parts:
        part.widen(widest, policy.pad_id)
    whole = Responses(*(torch.cat(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))
    width, own, device = int(whole.lengths.max()), whole.origin < 0, whole.ids.device
    row = torch.where(own, torch.arange(len(own), device=device), whole.origin)
    prompt_ids, prompt_mask = (x.to(device) for x in pad_left(prompts, policy.pad_id))
    group = row // plan.rows
    filled = response_mask(whole.lengths, width)
    spoken = whole.spoken[:, :width]
    return Rollouts(
        prompt_ids=prompt_ids[group],
        prompt_mask=prompt_mask[group],
        response_ids=whole.ids[:, :width],
        lengths=whole.lengths,
        mask=filled & ~spoken & ~response_mask(whole.cut, width),
        group=group,
        origin=whole.origin,
        cut=whole.cut,
        trained=~whole.greedy & (own | plan.reuse),
        truncated=~whole.finished,
        examples=[],
        spoken=spoken if turns else None,
        turn_rewards=whole.turn_rewards[:, :width] if turns else None,
        cuts=whole.cuts[:, :width] if plan.cuts is not None else None,
        sampler_logprobs=whole.logprobs[:, :width],
    )
