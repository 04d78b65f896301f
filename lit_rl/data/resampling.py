"""Dynamic sampling: other prompts in place of those whose responses all earn the same (DAPO, 2503.14476)."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lit_rl.callbacks.reward import RewardCallback
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import has_spread
from lit_rl.policy.sharding import gathered
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import SamplingPlan

OF_THE_TABLE = ("group", "origin", "row")  # what says where a row stands, not what it is


def check_plan(plan: SamplingPlan) -> None:
    """That the rewards of a prompt's samples are all that decides of it.

    Raises:
        UsageError: there are continuations, or no samples.
    """
    if plan.continuations or plan.demonstrations:
        raise UsageError("data.resample is for algorithms that sample, without continuations; set it to 0")


def resampled(data: Any, rollouts: Rollouts, streams: Sequence[tuple[int, ...]]) -> tuple[Rollouts, int]:
    """Scored rollouts with other prompts in place of those without spread, and the tokens of what was replaced.

    There are ``data.resample`` tries; what has no spread then stays.

    Args:
        data: the data module, in training.
        rollouts: of an iteration, without continuations.
        streams: for each prompt, integers that name what is drawn in its place.
    """
    trainer, algorithm = data.trainer, data.trainer.lightning_module
    reward = next(each for each in trainer.callbacks if isinstance(each, RewardCallback))
    prompts, policy, tokens = data.prompts.of("train"), algorithm.behaviour, 0
    rollouts.rewards = reward.score(trainer, algorithm, rollouts)
    for again in range(1, data.resample + 1):
        flat = flat_groups(rollouts)
        if not int(data.max_over_ranks(torch.tensor(len(flat)))):
            break
        if not flat:
            with gathered(policy):  # by all ranks together
                continue
        named = [(*streams[group], again) for group in flat]
        numbers = [int(np.random.default_rng([data.seed, *name]).integers(len(prompts))) for name in named]
        others = data.sample(policy, algorithm.plan, [prompts[number] for number in numbers], named)
        others.rewards = reward.score(trainer, algorithm, others)
        tokens += int(rollouts.mask[rows_of(rollouts, flat)].sum())
        rollouts = with_groups(rollouts, flat, others)
    return rollouts, tokens


def flat_groups(rollouts: Rollouts) -> list[int]:
    """The groups whose samples all have the same reward, in ascending order."""
    assert rollouts.rewards is not None
    groups = rollouts.group[rollouts.sampled]
    flat = groups[~has_spread(rollouts.rewards[rollouts.sampled], groups)]
    return flat.unique().tolist()  # type: ignore[no-any-return]


def rows_of(rollouts: Rollouts, groups: Sequence[int]) -> Tensor:
    """The rows of the given groups, group by group."""
    return torch.cat([(rollouts.group == group).nonzero().squeeze(1) for group in groups])


def with_groups(rollouts: Rollouts, groups: Sequence[int], others: Rollouts) -> Rollouts:
    """The table with the k-th group of another one in the place of ``groups[k]``; both have groups of one size.

    Tables may be of different widths. What was fed to the model for the groups that are left out stays counted.
    """
    rows = rows_of(rollouts, groups)
    examples = list(rollouts.examples)
    for group, example in zip(groups, others.examples, strict=True):
        examples[group] = example
    values: dict[str, Any] = {}
    for field in fields(Rollouts):
        old, new = getattr(rollouts, field.name), getattr(others, field.name)
        if old is None and isinstance(new, Tensor):
            old = new.new_zeros(len(rollouts), *new.shape[1:])
        if isinstance(old, Tensor) and field.name not in OF_THE_TABLE:
            new = old.new_zeros(len(others), *old.shape[1:]) if new is None else new
            if old.dim() == 2:
                width, left = max(old.shape[1], new.shape[1]), field.name.startswith("prompt")
                old, new = (_padded(x, width, left) for x in (old, new))
            values[field.name] = old.index_copy(0, rows, new.to(old))
    return replace(rollouts, **values, examples=examples, prefilled=rollouts.prefilled + others.prefilled)


def _padded(x: Tensor, width: int, left: bool) -> Tensor:
    more = width - x.shape[1]
    return pad(x, (more, 0) if left else (0, more))
