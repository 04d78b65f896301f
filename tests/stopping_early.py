"""Tasks, samplers and algorithms that raise StopIteration, which Lightning's loops take for their own end."""

from typing import Any

from lit_rl.algorithms import GRPO
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import KeyToken


def stop(*_: Any, **__: Any) -> Any:
    raise StopIteration


class NoPrompts(KeyToken):
    prompts = stop


class NoScore(KeyToken):
    score = stop


class NoSamples(LocalSampler):
    sample = stop


class NoAdvantages(GRPO):
    advantages = stop


class NoLoss(GRPO):
    loss = stop


class NoPredictions(GRPO):
    predictions = stop
