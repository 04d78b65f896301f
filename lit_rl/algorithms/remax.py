"""ReMax: REINFORCE whose baseline is the return of the greedy response."""

from dataclasses import replace

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.advantages import group_sum
from lit_rl.rollouts import Rollouts


class ReMax(Algorithm):
    """REINFORCE with r - r(greedy response to the prompt) in the place of r (2310.10505). Unbiased.

    The greedy response is a probe: generated, scored and counted, never trained on.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.plan = replace(self.plan, greedy=True)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        returns = self.returns(rollouts)
        greedy = group_sum(returns.masked_fill(rollouts.trained, 0), rollouts.group)
        return (returns - greedy)[:, None].expand_as(rollouts.mask)
