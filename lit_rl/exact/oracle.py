"""An algorithm with exact advantages: the bound that estimates of credit are compared with."""

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.exact.tree import grow
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
