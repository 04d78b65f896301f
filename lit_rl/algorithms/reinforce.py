"""REINFORCE: the base case."""

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.rollouts import Rollouts


class REINFORCE(Algorithm):
    """grad = E[ r sum_t psi_t ], psi_t = grad log pi(a_t | s_t): the response's return, with no baseline.

    Unbiased (Williams, 1992).
    """

    def advantages(self, rollouts: Rollouts) -> Tensor:
        return self.returns(rollouts)[:, None].expand_as(rollouts.mask)
