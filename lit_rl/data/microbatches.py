"""The micro-batches of an iteration: which rows of its rollouts are trained on together, and when."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_rl.rollouts import Rollouts


class MicroBatches(Dataset):
    """An iteration's rollouts as micro-batches.

    ``schedule`` holds the numbers of each micro-batch's trained rows. Rows are looked up when they are asked for: after
    scores and advantages have been filled in and pairs chosen. The number -1 fills up a micro-batch, with a row that
    has no token of its own.
    """

    def __init__(self, rollouts: Rollouts, schedule: Sequence[Tensor], window_tokens: Sequence[float | None]) -> None:
        self.rollouts, self.schedule, self.window_tokens = rollouts, schedule, window_tokens
        self._rows = sum(int((each >= 0).sum()) for each in schedule)

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, index: int) -> Rollouts:
        numbers = self.schedule[index].to(self.rollouts.trained.device)
        rows = self.rollouts.trained.nonzero().squeeze(1)[numbers.clamp(min=0)]
        minibatch = self.rollouts.select(rows)
        minibatch.mask = minibatch.mask & (numbers >= 0)[:, None]
        minibatch.window_tokens = self.window_tokens[index]
        minibatch.padded = len(numbers) * len(self.schedule) / self._rows
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


def groups_together(steps: Tensor, order: Tensor | None) -> Tensor:
    """The numbers of each optimizer step [steps, rows], sorted so that groups stand together.

    A micro-batch reads each prompt once, so this saves work, and so does a sample that stands before its continuations.

    Args:
        order: the place of each trained row's group [N]; None if numbers are in the order of their groups.
    """
    steps = steps.sort(1).values
    if order is None:
        return steps
    return steps.gather(1, order[steps.clamp(min=0)].argsort(dim=1, stable=True))


def by_length(rollouts: Rollouts) -> Tensor:
    """The place of each trained row's group [N]: groups are in the order of their longest responses.

    Attention pads the responses of a micro-batch to the longest, so groups of like lengths belong together.
    """
    groups, lengths = (x[rollouts.trained].cpu() for x in (rollouts.group, rollouts.lengths))
    longest = torch.zeros(len(rollouts.examples), dtype=lengths.dtype).scatter_reduce(0, groups, lengths, "amax")
    return longest.argsort(stable=True).argsort()[groups]


Piece = tuple[int, list[int]]  # tokens that are read for some trained rows, and their numbers


def pieces(rollouts: Rollouts, tokens: int) -> list[Piece]:
    """The trained rows of each group, or parts of them, of at most so many tokens.

    A group that takes more is split, and what its parts share is read once in each. One row may take more by itself.
    """
    rows = rollouts.select(rollouts.trained.nonzero().squeeze(1)).to("cpu")
    forked = rows.origin >= 0
    stem = torch.where(forked, rows.origin, rows.row)
    last = (rows.mask * torch.arange(rows.mask.shape[1])).amax(1)  # nothing is asked of the tokens after it
    columns = (rows.group, rows.prompt_mask.sum(1), stem, torch.where(forked, rows.cut, last), last - rows.cut * forked)
    order = sorted(zip(*(each.tolist() for each in columns), range(len(rows)), strict=True), key=lambda x: (x[0], x[2]))
    found: list[Piece] = []
    before, stems = -1, dict[int, int]()
    for group, prompt, key, shared, whole, number in order:
        own = whole if rows.origin[number] >= 0 else 0
        more = own + max(0, shared - stems.get(key, 0))
        if group != before or found[-1][0] + more > tokens:
            before, stems = group, {}
            found.append((prompt, []))
            more = own + shared
        stems[key] = max(stems.get(key, 0), shared)
        found[-1] = (found[-1][0] + more, [*found[-1][1], number])
    return found


def fewest(parts: Sequence[Piece], tokens: int, unit: int) -> int:
    """How many micro-batches of at most so many tokens take the pieces, a multiple of ``unit``."""
    most = max(tokens, *(size for size, _ in parts))
    count = unit
    while max(size for size, _ in packed(parts, count)) > most:
        count += unit
    return count


def packed(parts: Sequence[Piece], count: int) -> list[Piece]:
    """The pieces in so many micro-batches of about as many tokens each: the largest first, each to the smallest."""
    bins: list[Piece] = [(0, [])] * count
    for size, numbers in sorted(parts, key=lambda part: -part[0]):
        smallest = min(range(count), key=lambda i: bins[i][0])
        bins[smallest] = (bins[smallest][0] + size, bins[smallest][1] + numbers)
    return bins


def by_tokens(parts: Sequence[Piece], count: int, passes: int, rng: np.random.Generator) -> list[Tensor]:
    """A schedule of ``passes`` times ``count`` micro-batches, each pass in another order; -1 is in one without rows."""
    schedule = []
    for _ in range(passes):
        bins = packed([parts[i] for i in rng.permutation(len(parts))], count)
        schedule += [torch.tensor(sorted(bins[i][1]) or [-1]) for i in rng.permutation(count)]
    return schedule
