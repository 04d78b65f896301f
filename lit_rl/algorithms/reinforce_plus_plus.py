"""REINFORCE++: REINFORCE with advantages that are normalised over all responses of an iteration."""

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import group_relative
from lit_rl.functional.critic import gae, whiten
from lit_rl.functional.placement import last
from lit_rl.ranges import Count, NonNegative, Share
from lit_rl.rollouts import Rollouts


class REINFORCEPlusPlus(Algorithm):
    """Shifts and scales the returns of an iteration's tokens to mean 0 and standard deviation 1 (2501.03262).

    A token's return is the response's reward and the penalties ``k1_reward`` from the token on. Mean and deviation are
    over all tokens of all prompts and processes, as in the authors' code. They contain the response itself: a bias that
    falls as the iteration grows, and a scale that changes from one iteration to the next.

    Args:
        samples: responses sampled for each prompt (G).
        group_baseline: first subtract the mean reward of the prompt's responses, the paper's form for reasoning; needs
            two samples.
        clip_low: clips the importance ratio pi / pi_old below 1 - clip_low; null does not.
        clip_high: clips the importance ratio above 1 + clip_high; null does not.

    Raises:
        UsageError: ``group_baseline`` with one sample.
    """

    normalises = True

    def __init__(
        self,
        samples: Count = 1,
        group_baseline: bool = False,
        clip_low: Share | None = 0.2,
        clip_high: NonNegative | None = 0.2,
        **kwargs,
    ) -> None:
        if group_baseline and samples < 2:
            raise UsageError(f"model.samples is {samples}, but model.group_baseline needs 2; raise it")
        super().__init__(samples=samples, clip_low=clip_low, clip_high=clip_high, **kwargs)
        self.group_baseline = self.compares_group = group_baseline

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards, mask = rollouts.rewards, rollouts.mask
        assert rewards is not None, "score the rollouts before preparing them"
        if self.group_baseline:
            rewards = group_relative(rewards, rollouts.group)
        earned = last(rewards, mask)
        if rollouts.token_rewards is not None:
            earned = earned + rollouts.token_rewards
        ahead = gae(earned, torch.zeros_like(earned), mask, 1.0)
        return whiten(ahead, mask, self._sum_over_ranks)

    def _sum_over_ranks(self, x: Tensor) -> Tensor:
        return x if self._trainer is None else self._data.sum_over_ranks(x).to(x)
