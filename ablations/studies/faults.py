"""Algorithms with a fault that no setting has, for the study of the warnings."""

from torch import Tensor, nn

from lit_rl.algorithms import PPO, REINFORCE
from lit_rl.ranges import Number
from lit_rl.rollouts import Rollouts


class ConstantBaseline(REINFORCE):
    """REINFORCE with a constant in the place of a baseline: A_t = r - b. Far from the mean reward, it is only noise.

    Args:
        baseline: b, in units of the reward.
    """

    def __init__(self, baseline: Number = 0.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.baseline = baseline

    def advantages(self, rollouts: Rollouts) -> Tensor:
        return super().advantages(rollouts) - self.baseline


class ShiftedCritic(PPO):
    """PPO whose critic starts at a constant other than 0, as one that was fitted to rewards of another scale.

    Args:
        offset: the value of every prefix at the start, in units of the reward.
    """

    def __init__(self, offset: Number = 0.0, **kwargs) -> None:
        super().__init__(**kwargs)
        assert self.critic is not None
        nn.init.constant_(self.critic.head.bias, offset)
