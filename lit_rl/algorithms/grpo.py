"""GRPO, and by its arguments Dr.GRPO and DAPO's loss."""

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.advantages import group_relative
from lit_rl.functional.losses import Normalizer
from lit_rl.ranges import NonNegative, Several, Share
from lit_rl.rollouts import Rollouts


class GRPO(Algorithm):
    """RLOO with the mean over all responses, divided by their standard deviation, and a length-normalised clipped loss.

    Three differences, three arguments. The full mean only rescales, by 1 - 1/G. The deviation changes the objective: a
    prompt solved at rate p is weighted by about 1/sqrt(p(1-p)). The normaliser weighs tokens of short responses more.

    ========================  ==============  =================  =========
    variant                   scale_by_std    normalizer         clip_high
    ========================  ==============  =================  =========
    GRPO (2402.03300)         true            sequence_mean      0.2
    Dr.GRPO (2503.20783)      false           constant           0.2
    DAPO's (2503.14476)       true            token_mean         0.28
    ========================  ==============  =================  =========

    Args:
        samples: responses a prompt, at least 2.
        scale_by_std: divide by the group's standard deviation.
    """

    compares_group = True

    def __init__(
        self,
        samples: Several = 4,
        scale_by_std: bool = True,
        normalizer: Normalizer = "sequence_mean",
        clip_low: Share | None = 0.2,
        clip_high: NonNegative | None = 0.2,
        **kwargs,
    ) -> None:
        super().__init__(samples=samples, normalizer=normalizer, clip_low=clip_low, clip_high=clip_high, **kwargs)
        self.scale_by_std = scale_by_std

    def advantages(self, rollouts: Rollouts) -> Tensor:
        advantages = group_relative(self.returns(rollouts), rollouts.group, self.scale_by_std)
        return advantages[:, None].expand_as(rollouts.mask)
