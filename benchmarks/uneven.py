"""Responses of unequal length: what padding costs an update, and how long two ranks wait for each other.

``python -m benchmarks.uneven [dealt]`` trains on two processes and prints their CPU seconds, iteration by iteration.
"""

import functools
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from benchmarks.measure import Line, process
from lit_rl.algorithms import GRPO
from lit_rl.callbacks import RewardCallback
from lit_rl.commands.cli import quiet
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.data.microbatches import by_length, groups_together, shuffled
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import GSM8KStyle

SAMPLES, MOST = 4, 192
PROMPTS, ROWS = 64, 32  # of an update, and of its micro-batches
ROUNDS = 5
RANKS, ITERATIONS = 2, 8


def task() -> GSM8KStyle:
    """Problems of two to eight steps, with answers of 20 to 190 tokens."""
    return GSM8KStyle(steps=2, most_steps=8)


def grpo() -> GRPO:
    return GRPO(samples=SAMPLES, max_new_tokens=MOST, learning_rate=0.0)


def uneven() -> list[Line]:
    return [*padding(), *waiting()]


def padding() -> list[Line]:
    """A forward and backward pass over an update's micro-batches: groups by length beside groups as drawn."""
    algorithm = grpo()
    examples = list(task().prompts("train").select(range(PROMPTS)))
    prompts = [algorithm.policy.encode_prompt(example["prompt"]) for example in examples]
    rollouts = LocalSampler().sample(algorithm.policy, prompts, algorithm.plan, [(i,) for i in range(PROMPTS)])
    rollouts.examples, rollouts.rewards = examples, torch.rand(len(rollouts))
    algorithm.prepare(rollouts, ROWS)
    count = len(rollouts)
    steps = shuffled(count, 1, count, 1, 1, np.random.default_rng(0))
    ways = {
        name: groups_together(steps, order).view(-1, ROWS)
        for name, order in (("sorted", by_length(rollouts)), ("drawn", rollouts.group))
    }

    def padded(way: str) -> int:
        return sum(len(part) * int(rollouts.lengths[part].max()) for part in ways[way])

    def passes(way: str) -> float:
        started = time.process_time()
        for part in ways[way]:
            some = rollouts.select(part)
            sum(algorithm.loss(some, *algorithm.predictions(some)).values()).backward()  # type: ignore[union-attr]
        return time.process_time() - started

    passes("sorted"), passes("drawn")
    rounds = [(passes("sorted"), passes("drawn")) for _ in range(ROUNDS)]
    name = f"an update of {PROMPTS} x {SAMPLES} rows of unequal length, groups sorted by length: as drawn"
    return [
        _smaller(f"{name}, response columns", "tokens", [(padded("sorted"), padded("drawn"))]),
        _smaller(f"{name}, forward and backward", "CPU s", rounds),
    ]


def waiting() -> list[Line]:
    """The CPU seconds of an iteration's slower rank beside the mean of both: what is between them is waiting."""
    lines = []
    for name, args in {"as drawn": (), "dealt by length": ("dealt",)}.items():
        spent = torch.tensor(process("benchmarks.uneven", *args)["seconds"])  # [ranks, iterations, phases]
        slower, mean = (float(x.sum() / x.shape[0]) for x in (spent.amax(0), spent.mean(0)))
        title = f"an iteration of {RANKS} ranks, prompts {name}, the slower rank's time: the mean of both"
        lines.append(_smaller(title, "CPU s", [(slower, mean)]))
    return lines


def _smaller(name: str, unit: str, rounds: list[tuple[float, float]]) -> Line:
    ours, peer = np.median(rounds, 0).tolist()
    return Line(name, ours, peer, unit, float(np.median([b / a for a, b in rounds])), 0.0)


class Dealt(RolloutDataModule):
    """Deals an iteration's prompts so that ranks have about equal tokens, by the lengths of their demonstrations."""

    @functools.cache  # noqa: B019
    def _order(self, epoch: int, n: int) -> list[int]:
        lengths = [len(text) for text in self.prompts.of("train")["demonstration"]]
        drawn = super()._order(epoch, n)
        dealt: list[int] = []
        for first in range(0, n, self.prompts_per_iteration):
            some = sorted(drawn[first : first + self.prompts_per_iteration], key=lambda i: lengths[i])
            for turn in range(0, len(some), RANKS):  # the longer of two goes to one rank and to the other in turns
                dealt += some[turn : turn + RANKS][:: 1 if turn // RANKS % 2 else -1]
        return dealt


class Clock(Callback):
    """CPU seconds of each iteration's two phases, sampling and update; ranks wait for each other behind each."""

    def __init__(self) -> None:
        self.seconds: list[tuple[float, float]] = []
        self._ended = self._sampled = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ended = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sampled = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.process_time()
        if self._ended:  # the first iteration begins with what is done once
            self.seconds.append((self._sampled - self._ended, now - self._sampled))
        self._ended = now


def _on_two_ranks(kind: type[RolloutDataModule]) -> None:
    torch.set_num_threads(1)
    clock = Clock()
    settings: dict[str, Any] = {**TRAINER_DEFAULTS, "accelerator": "cpu", "devices": RANKS, "strategy": "ddp"}
    settings |= {"max_epochs": ITERATIONS, "accumulate_grad_batches": 4, "limit_val_batches": 0}
    settings |= {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**settings, callbacks=[clock, RewardCallback()])
    data = kind(task(), prompts_per_iteration=32, rows_per_microbatch=16, seed=0)
    trainer.fit(grpo(), datamodule=data)
    found = trainer.strategy.all_gather(torch.tensor(clock.seconds))
    if trainer.is_global_zero:
        print(json.dumps({"seconds": found.tolist()}))


if __name__ == "__main__":
    quiet()
    _on_two_ranks(Dealt if "dealt" in sys.argv[1:] else RolloutDataModule)
