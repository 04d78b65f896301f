"""GRPO, and with other settings Dr.GRPO and DAPO's loss."""

from typing import Literal

from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.algorithms.placements import paid_for_turns
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import group_relative, turn_relative
from lit_rl.functional.losses import Normalizer
from lit_rl.functional.placement import last
from lit_rl.ranges import NonNegative, Several, Share
from lit_rl.rollouts import Rollouts


class GRPO(Algorithm):
    """Compares a response with the mean of its group, in units of the group's standard deviation.

    A_t = (r_i - mean) / sd. The loss is clipped, and normalised by the length of the response. It follows another
    objective than E[r]:

    - The mean contains the response itself. This only rescales the gradient, by 1 - 1/G.
    - The division by the standard deviation weighs a prompt with success rate p by about 1 / sqrt(p (1 - p)).
    - The division by the length gives a token of a short response more weight.

    ========================  ==============  =================  =========
    variant                   scale_by_std    normalizer         clip_high
    ========================  ==============  =================  =========
    GRPO (2402.03300)         true            sequence_mean      0.2
    Dr.GRPO (2503.20783)      false           constant           0.2
    DAPO's (2503.14476)       true            token_mean         0.28
    ========================  ==============  =================  =========

    Args:
        samples: responses sampled for each prompt (G), at least 2.
        scale_by_std: divide by the standard deviation of the group's returns.
        rewards: what is compared in a group. ``response``: the returns of whole responses. ``turns``: what an
            environment pays for each turn; a token is weighed by the turns from its own on, as with process supervision
            (2402.03300).
        normalizer: what the loss of a response is divided by. ``row_sum``: 1, the policy gradient itself.
            ``sequence_mean``: the tokens of the response. ``token_mean``: the mean number of tokens over an optimizer
            step. ``constant``: ``max_new_tokens``.
        clip_low: clips the importance ratio pi / pi_old below 1 - clip_low; null does not.
        clip_high: clips the importance ratio above 1 + clip_high; null does not.
    """

    compares_group = True

    def __init__(
        self,
        samples: Several = 4,
        scale_by_std: bool = True,
        rewards: Literal["response", "turns"] = "response",
        normalizer: Normalizer = "sequence_mean",
        clip_low: Share | None = 0.2,
        clip_high: NonNegative | None = 0.2,
        **kwargs,
    ) -> None:
        super().__init__(samples=samples, normalizer=normalizer, clip_low=clip_low, clip_high=clip_high, **kwargs)
        if rewards == "turns" and self._penalized:
            raise UsageError(
                "model.kl k1_reward lowers the rewards of responses, but model.rewards turns compares those of turns; "
                "set model.kl k3_loss"
            )
        self.scale_by_std, self.rewards = scale_by_std, rewards

    def advantages(self, rollouts: Rollouts) -> Tensor:
        if self.rewards == "turns":
            paid, total = paid_for_turns(rollouts, "model.rewards turns"), self.returns(rollouts)
            # turns keep their rewards to the last bit: rewards that are equal differ by nothing
            rest = total - paid.double().sum(1).to(total)
            earned = paid.to(total) + last(rest, rollouts.mask)
            return turn_relative(earned, rollouts.mask, rollouts.group, self.scale_by_std)
        advantages = group_relative(self.returns(rollouts), rollouts.group, self.scale_by_std)
        return advantages[:, None].expand_as(rollouts.mask)
