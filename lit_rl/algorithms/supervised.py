"""Supervised learning in the same loop: makes the warm start, and is the control that RL has to beat."""

from dataclasses import replace

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.losses import row_denominator, rows_mean
from lit_rl.rollouts import Rollouts


class Supervised(Algorithm):
    """Maximises the likelihood of the task's demonstrations: the loss is -mean_i (1/d_i) sum_t log pi(a_t | s_t).

    No reward enters. d_i is the normaliser of row i, see ``normalizer``.
    """

    weighs_tokens = False

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.plan = replace(self.plan, demonstrations=True)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        return torch.ones_like(rollouts.mask, dtype=torch.float32)

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        # the policy did not sample these rows: its log-probabilities and entropy along them say nothing of it
        rollouts.advantages = self.advantages(rollouts) * rollouts.mask

    def loss(self, minibatch: Rollouts, logprobs: Tensor) -> dict[str, Tensor]:
        mask = minibatch.mask
        # not the ratio of the shared loss: demonstrations are no sample of the policy, and it would run away
        denominator = row_denominator(mask, self.normalizer, minibatch.window_tokens, self.plan.max_new_tokens)
        return {"policy": -rows_mean(logprobs, mask, denominator)}
