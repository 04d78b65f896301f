"""The micro-batches of an iteration: which rows of its rollouts are trained on together, and when."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_rl.rollouts import Rollouts


class MicroBatches(Dataset):
    """An iteration's rollouts as micro-batches.

    ``schedule`` [passes * micro-batches, rows] holds the numbers of trained rows. Rows are looked up when they are
    asked for: after scores and advantages have been filled in and pairs chosen. The number -1 fills up a micro-batch,
    with a row that has no token of its own.
    """

    def __init__(self, rollouts: Rollouts, schedule: Tensor, window_tokens: Sequence[float | None]) -> None:
        self.rollouts, self.schedule, self.window_tokens = rollouts, schedule, window_tokens

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, index: int) -> Rollouts:
        numbers = self.schedule[index].to(self.rollouts.trained.device)
        rows = self.rollouts.trained.nonzero().squeeze(1)[numbers.clamp(min=0)]
        minibatch = self.rollouts.select(rows)
        minibatch.mask = minibatch.mask & (numbers >= 0)[:, None]
        minibatch.window_tokens = self.window_tokens[index]
        minibatch.padded = self.schedule.numel() / int((self.schedule >= 0).sum())
        return minibatch


def shuffled(count: int, steps: int, step: int, passes: int, unit: int, rng: np.random.Generator) -> Tensor:
    """Numbers of rows [passes * steps, step], each of ``count`` once per pass; -1 fills up to whole optimizer steps.

    Args:
        count: rows of this rank.
        steps: optimizer steps of a pass.
        step: rows of an optimizer step.
        unit: rows that stay together: 2 for pairs.
    """
    numbers = torch.arange(steps * step)
    units = numbers.masked_fill(numbers >= count, -1).view(-1, unit)
    order = np.concatenate([rng.permutation(len(units)) for _ in range(passes)])
    return units[torch.from_numpy(order)].reshape(-1, step)


def groups_together(steps: Tensor, groups: Tensor | None) -> Tensor:
    """The numbers of each optimizer step [steps, rows], sorted so that groups stand together.

    A micro-batch reads each prompt once, so this saves work.

    Args:
        groups: the group of each trained row [N]; None if numbers are in the order of their groups.
    """
    if groups is None:
        return steps.sort(1).values
    return steps.gather(1, groups[steps.clamp(min=0)].argsort(dim=1, stable=True))
