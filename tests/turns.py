"""Responses in which an environment speaks between the policy's tokens."""

from dataclasses import replace

import numpy as np
import torch

from lit_rl.policy import TabularPolicy
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, SamplingPlan

V, T = 4, 6


def rows(*marks):
    """A mask from words like 'x.x': x is chosen."""
    return torch.tensor([[mark == "x" for mark in word] for word in marks])


def two_turns(**changes):
    """Two responses to a prompt: 'x.x' and 'xx..x', whose turns earn 1 and 3, and 0 and 4."""
    policy = TabularPolicy(V, T).double()
    rollouts = LocalSampler().sample(policy, [[0]], SamplingPlan(samples=2, max_new_tokens=5), [(0,)])
    rollouts.lengths = torch.tensor([3, 5])
    rollouts.mask = rows("x.x..", "xx..x")
    rollouts.spoken = rollouts.filled & ~rollouts.mask
    rollouts.turn_rewards = torch.tensor([[1.0, 0, 3, 0, 0], [0, 0, 0, 0, 4]])
    rollouts.rewards = rollouts.turn_rewards.sum(1)
    return replace(rollouts, **changes)


def spoken_between(rollouts: Rollouts, vocabulary: int, seed: int = 0) -> Rollouts:
    """The same rows with an environment's tokens at random places, also before the first of the policy's tokens and
    behind the last one. A continuation has those of its origin up to its cut."""
    rng = np.random.default_rng(seed)
    n, width = rollouts.response_ids.shape
    columns: list[list[int]] = []  # of each row's own tokens
    cut = torch.zeros(n, dtype=torch.long)
    for i in range(n):
        at, inherited = int(rollouts.cut[i]), []
        if at:
            inherited = columns[int(rollouts.origin[i])][:at]
            cut[i] = columns[int(rollouts.origin[i])][at]
            inherited.append(int(cut[i]))  # whatever is said before a cut belongs to the prefix
        start = inherited[-1] + 1 if inherited else 0
        more = int(rollouts.lengths[i]) - len(inherited)
        columns.append(inherited + sorted((start + rng.choice(2 * more + 1, more, replace=False)).tolist()))
    lengths = torch.tensor([own[-1] + 1 + int(rng.integers(3)) for own in columns])
    wide = int(lengths.max())
    written, ids = torch.zeros(n, wide, dtype=torch.bool), torch.from_numpy(rng.integers(0, vocabulary, (n, wide)))
    cuts = None if rollouts.cuts is None else torch.zeros(n, wide, dtype=torch.bool)
    for i, own in enumerate(columns):
        if cut[i]:
            ids[i, : cut[i]] = ids[rollouts.origin[i], : cut[i]]
        written[i, own] = True
        ids[i, own] = rollouts.response_ids[i, : len(own)]
        if cuts is not None:
            cuts[i, own[1:]] = rollouts.cuts[i, 1 : len(own)]
            cuts[i, 0] = rollouts.cuts[i, 0]  # the prompt is cut at its end, whoever speaks first
    there = torch.arange(wide)
    changed = replace(rollouts, response_ids=ids, lengths=lengths, cut=cut, cuts=cuts)
    changed.spoken = (there < lengths[:, None]) & ~written
    changed.mask = written & (there >= cut[:, None])
    assert torch.equal(changed.written, written)
    assert torch.equal(changed.mask.sum(1), rollouts.mask.sum(1)) and changed.spoken.any()
    return changed
