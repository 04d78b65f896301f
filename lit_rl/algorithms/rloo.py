"""RLOO: REINFORCE with the mean of the other responses to the prompt as its baseline."""

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.advantages import leave_one_out
from lit_rl.ranges import Several
from lit_rl.rollouts import Rollouts


class RLOO(Algorithm):
    """Subtracts the mean return of the other responses to the prompt. Unbiased (2402.14740).

    A_t = r_i - mean_{j != i} r_j for every token of response i.

    Args:
        samples: responses sampled for each prompt (G), at least 2.
    """

    compares_group = True

    def __init__(self, samples: Several = 4, **kwargs) -> None:
        super().__init__(samples=samples, **kwargs)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        return leave_one_out(self.returns(rollouts), rollouts.group)[:, None].expand_as(rollouts.mask)
