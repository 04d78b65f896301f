"""Prompts that are too long for the model or the sampler: reported before the first iteration, or left out."""

import sys
from collections.abc import Sequence
from typing import Any, Literal

from datasets import Dataset

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.sampling.base import Sampler, positions, too_much
from lit_rl.tasks import Task
from lit_rl.tasks.base import Split

TooLong = Literal["error", "drop"]
TEMPLATE = 256  # more tokens than a chat template adds; a token of a prompt stands for a byte at least


class Prompts:
    """A task's prompts, checked once for those that are longer than model and sampler allow.

    Args:
        task: whose prompts.
        too_long: ``error`` refuses the run; ``drop`` leaves them out of every split.

    Attributes:
        left_out: the number of prompts left out, by split, for the splits that have been checked.
    """

    def __init__(self, task: Task, too_long: TooLong) -> None:
        self.task, self.too_long = task, too_long
        self.left_out: dict[Split, int] = {}
        self._kept: dict[Split, Dataset] = {}

    def of(self, split: Split) -> Dataset:
        """The prompts of a split, without those that were left out."""
        return self._kept[split] if split in self._kept else self.task.prompts(split)

    def look(
        self, split: Split, policy: CausalPolicy, sampler: Sampler, max_new_tokens: int, first: int | None, tell: bool
    ) -> None:
        """Checks a split.

        Args:
            sampler: of the responses.
            first: how many of its prompts are used; None is all.
            tell: print how many are left out.

        Raises:
            UsageError: a prompt that is used, with ``max_new_tokens``, is longer than they allow; or all are.
        """
        prompts, most = self.task.prompts(split), positions(policy, sampler)
        self._kept[split], self.left_out[split] = prompts, 0
        if most is None or not len(prompts):
            return
        room = most - max_new_tokens
        used = range(len(prompts) if first is None or self.too_long == "drop" else min(first, len(prompts)))
        lengths = _lengths(prompts.select(used)["prompt"][:], policy, room)
        long = [i for i in used if lengths[i] > room]
        if not long:
            return
        if len(long) == len(used):
            raise UsageError(
                f"model.max_new_tokens is {max_new_tokens}: with the shortest prompt of the split {split}, "
                f"of {min(lengths)} tokens, {too_much(policy, sampler, 'lower it')}"
            )
        if self.too_long == "error":
            row = long[0]
            raise UsageError(
                f"data.task: {len(long)} of {len(used)} prompts of the split {split} are too long, the first of them "
                f"with {lengths[row]} tokens: with model.max_new_tokens {max_new_tokens} "
                + too_much(policy, sampler, "set data.too_long drop, or lower model.max_new_tokens")
            )
        out = set(long)
        self._kept[split] = prompts.select([i for i in used if i not in out])
        self.left_out[split] = len(long)
        if tell:
            said = f"{len(long)} of {len(used)} prompts of the split {split}, longer than {room} tokens"
            print(f"lit_rl: data.too_long drop leaves out {said}", file=sys.stderr)


def _lengths(prompts: Sequence[list[dict[str, Any]]], policy: CausalPolicy, room: int) -> list[int]:
    """Tokens of each prompt; of those that surely fit into ``room``, as many as they may have at most."""
    found = []
    for messages in prompts:
        most = TEMPLATE + sum(len(turn["content"].encode()) for turn in messages)
        found.append(most if most <= room else len(policy.encode_prompt(messages)))
    return found
