"""TRL's RLOO and GRPO on this project's rollouts, and their advantages as estimators for ``verify``.

TRL's own code computes whatever is its; only its sampling is replaced, by given responses.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from lit_rl.algorithms import Algorithm
from lit_rl.exact.certificate import random_policy
from lit_rl.exact.small_tasks import PARITY
from lit_rl.exact.tree import grow
from lit_rl.policy import CausalPolicy
from lit_rl.rollouts import Rollouts

ROWS = 1024  # of one forward pass


class GivenRLOO(RLOOTrainer):
    """TRL's RLOO over responses that were sampled elsewhere."""

    responses: list[list[int]]

    def _generate_single_turn(self, *_: Any, **__: Any) -> list[list[int]]:
        return self.responses


class GivenGRPO(GRPOTrainer):
    """TRL's GRPO over responses that were sampled elsewhere."""

    responses: list[list[int]]

    def _generate_single_turn(self, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        return self.responses, None


def make_trainer(kind: type, model: Any, tokenizer: Any, samples: int, rows: int, **settings: Any) -> Any:
    """A trainer of TRL whose reward is the sum of its data's columns ``reward`` and ``rest``.

    Args:
        kind: GivenRLOO or GivenGRPO.
        model: is trained itself, not a copy.
        samples: responses a prompt (G).
        rows: responses of one micro-batch.
        settings: of RLOOConfig or GRPOConfig.
    """
    config = GRPOConfig if issubclass(kind, GRPOTrainer) else RLOOConfig
    common = {"output_dir": tempfile.gettempdir(), "report_to": "none", "use_cpu": True, "bf16": False}
    batches = {"num_generations": samples, "per_device_train_batch_size": rows, "gradient_checkpointing": False}
    return kind(
        model=model,
        reward_funcs=[lambda reward, **_: reward, lambda rest, **_: rest],
        args=config(**common, **batches, **settings),
        train_dataset=Dataset.from_dict({"prompt": ["not read"]}),
        processing_class=tokenizer,
    )


def hand_over(trainer: Any, rollouts: Rollouts) -> list[dict[str, Any]]:
    """Makes the responses of scored rollouts those that the trainer samples next; returns its examples, one a row.

    Rewards may be float64: TRL rounds each reward function's to float32 and adds them up in the default dtype.
    """
    assert rollouts.rewards is not None and (rollouts.group.diff() >= 0).all()
    pairs = zip(rollouts.response_ids, rollouts.lengths, strict=True)
    trainer.responses = [ids[:length].tolist() for ids, length in pairs]
    reward = rollouts.rewards.float()
    rows = zip(rollouts.group.tolist(), reward.tolist(), (rollouts.rewards - reward).tolist(), strict=True)
    return [{"prompt": rollouts.examples[g]["prompt"], "reward": r, "rest": rest} for g, r, rest in rows]


class Peer(Algorithm):
    """The shared loss with the advantages that a trainer of TRL computes from the rewards.

    Args:
        samples: responses a prompt, at least 2.
        double: TRL takes the rewards' statistics in float64, so that the oracle sees no rounding; false: in float32,
            as it trains.
        settings: of TRL's configuration.
    """

    kind: type

    def __init__(self, samples: int = 2, double: bool = True, settings: dict[str, Any] | None = None, **kwargs) -> None:
        super().__init__(samples=samples, **kwargs)
        self.double = double
        tokenizer = CausalPolicy(weights="random").tokenizer
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))  # no advantage depends on it
        settings = {"beta": 0.0, **(settings or {})}
        self.trainer = make_trainer(self.kind, model, tokenizer, samples, samples * ROWS, **settings)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        with _default_dtype(torch.float64 if self.double else torch.float32):
            inputs = self.trainer._generate_and_score_completions(hand_over(self.trainer, rollouts))
        return inputs["advantages"][:, None].expand_as(rollouts.mask)


class TRLRLOO(Peer):
    """TRL's RLOO."""

    kind = GivenRLOO


class TRLGRPO(Peer):
    """TRL's GRPO, before its loss divides by any length."""

    kind = GivenGRPO


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def equal_rewards(algorithm: Algorithm, reward: float) -> float:
    """The largest advantage, in float32, in a group whose responses all have the same reward; exactly, it is 0."""
    table = grow(random_policy(PARITY), PARITY).rollouts(torch.zeros(algorithm.plan.samples, dtype=torch.long))
    table.rewards = torch.full((len(table),), reward)
    return float(algorithm.advantages(table).abs().max())
