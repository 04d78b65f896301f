"""ReMax: REINFORCE with the return of the greedy response as its baseline."""

from dataclasses import replace

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.advantages import group_sum
from lit_rl.rollouts import Rollouts


class ReMax(Algorithm):
    """Subtracts the return of the greedy response to the prompt: A_t = r - r(greedy). Unbiased (2310.10505).

    The greedy response takes the likeliest token at each position. It is a probe: generated, scored and counted among
    the generated tokens, but never trained on.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.plan = replace(self.plan, greedy=True)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        returns = self.returns(rollouts)
        greedy = group_sum(returns.masked_fill(rollouts.trained, 0), rollouts.group)
        return (returns - greedy)[:, None].expand_as(rollouts.mask)
