"""Algorithms that know what others estimate: the bounds that estimates of credit are compared with."""

from typing import Any

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.algorithms.ppo import PPO
from lit_rl.errors import UsageError
from lit_rl.exact.tree import grow
from lit_rl.ranges import Share
from lit_rl.rollouts import Rollouts
from lit_rl.tasks.position_credit import PositionTask


class ExactAdvantage(Algorithm):
    """Weighs a token by its exact advantage Q(s_t, a_t) - V(s_t), from the tree of all responses.

    The tree is that under the weights in training. The mean gradient is that of REINFORCE; what is left of the noise
    comes from the states that are visited.

    Args:
        task: the task that is trained on, ``data.task``.
    """

    def __init__(self, task: PositionTask, **kwargs) -> None:
        super().__init__(**kwargs)
        self.task = task

    def advantages(self, rollouts: Rollouts) -> Tensor:
        tree = grow(self.policy, self.task, self.plan.temperature)
        exact = tree.along(tree.advantages, rollouts.response_ids.cpu(), rollouts.lengths.cpu())
        return exact.to(rollouts.mask.device, self.policy.dtype)


class ExactCritic(PPO):
    """PPO whose critic knows the value of what a token is weighted by: V(s_t) = E[weight of token t | s_t].

    The expectation is over the tree of all responses, under the weights in training. The weight is what is paid from
    the token on or, with ``weighting`` ``full``, all that is paid.

    Args:
        task: the task that is trained on, ``data.task``, which gives the reward.
        known: share of the exact value that the critic predicts; 0 is none, 1/2 is half way to it.
    """

    def __init__(self, task: PositionTask, known: Share = 1.0, **kwargs: Any) -> None:
        super().__init__(critic=None, **kwargs)
        if self._penalized:
            raise UsageError("model.kl_coefficient: the exact critic knows no penalty in the reward; set it to 0")
        self.task, self.known = task, known

    def prior_values(self, rollouts: Rollouts, rows: int) -> Tensor:
        tree = grow(self.policy, self.task, self.plan.temperature)
        leaves = tree.rollouts(torch.arange(len(tree.ids))).to(rollouts.mask.device)
        leaves.token_rewards = self.token_rewards(leaves, rows)
        earned = self._earned(leaves).to(tree.q)
        ahead = earned.sum(1, keepdim=True) if self.weighting == "full" else earned.flip(1).cumsum(1).flip(1)
        values = tree.state_means(ahead.expand(earned.shape))
        exact = self.known * tree.along(values, rollouts.response_ids.cpu(), rollouts.lengths.cpu())
        return exact.to(rollouts.mask.device, self.policy.dtype)
