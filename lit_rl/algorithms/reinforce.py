"""REINFORCE: the response's reward, without a baseline."""

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.rollouts import Rollouts


class REINFORCE(Algorithm):
    """Weighs each token by the return of its response: A_t = r. Unbiased, noisy (Williams, 1992).

    The gradient estimate is ``r sum_t psi_t``, with the score psi_t = grad log pi(a_t | s_t).
    """

    def advantages(self, rollouts: Rollouts) -> Tensor:
        return self.returns(rollouts)[:, None].expand_as(rollouts.mask)
