"""Scores of a whole table of responses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_rl.rollouts import Rollouts
from lit_rl.tasks.base import Example

Score = Callable[[Example, Tensor, str], float]


def score_rows(
    score: Score, rollouts: Rollouts, texts: list[str], progress: Callable[[int, int], Any] | None = None
) -> Tensor:
    """``score(example, ids, text)`` of every row, probes included: [N] float32 on the rollouts' device."""
    ids, lengths, group = rollouts.response_ids.cpu(), rollouts.lengths.tolist(), rollouts.group.tolist()
    scores = []
    for row, text in enumerate(texts):
        scores.append(float(score(rollouts.examples[group[row]], ids[row, : lengths[row]], text)))
        if progress is not None:
            progress(row + 1, len(texts))
    return torch.tensor(scores, device=rollouts.group.device)


def texts_of(rollouts: Rollouts, decode: Callable[[Tensor], str]) -> list[str]:
    """The text of every row's response."""
    ids, lengths = rollouts.response_ids.cpu(), rollouts.lengths.tolist()
    return [decode(row[:length]) for row, length in zip(ids, lengths, strict=True)]
