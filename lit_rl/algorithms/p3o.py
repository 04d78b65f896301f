"""P3O: policy gradients of pairs of responses."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from lit_rl.algorithms.response_ratio import ResponseRatio
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import leave_one_out
from lit_rl.ranges import NonNegative, Several, Share
from lit_rl.rollouts import Rollouts


class P3O(ResponseRatio):
    """Half the difference of a pair's rewards times the difference of its scores (2310.00212). Unbiased.

    The gradient of a pair is (r_1 - r_2) (psi_1 - psi_2) / 2, with psi the score of a whole response. On the weights
    that sampled this is RLOO's with two responses, up to rounding. What differs comes later: the importance ratio is
    that of whole responses, rho_i = pi(response i) / pi_old(response i), so that without clipping later steps are
    unbiased as well. A penalty ``k1_reward`` enters the rewards that are compared. Both ways of clipping are written as
    PPO's minimum and may differ from the paper's.

    Args:
        samples: responses sampled for each prompt, 2: a pair.
        clipping: ``separate`` (V1): each response's ratio rho_i is clipped. ``joint`` (V2): that of the pair is, the
            better response's over the worse one's, which rises where the pair is learned; ``clip_high`` limits it, and
            ``clip_low`` has no meaning.
        clip_low: clips the ratio below 1 - clip_low; null does not.
        clip_high: clips the ratio above 1 + clip_high; null does not.

    Raises:
        UsageError: ``samples`` is not 2, or ``normalizer`` is set, which has no meaning for whole responses.
    """

    compares_group = True

    def __init__(
        self,
        samples: Several = 2,
        clipping: Literal["separate", "joint"] = "separate",
        clip_low: Share | None = 0.2,
        clip_high: NonNegative | None = 0.2,
        **kwargs,
    ) -> None:
        super().__init__(samples=samples, clip_low=clip_low, clip_high=clip_high, **kwargs)
        if samples != 2:
            raise UsageError(
                f"model.samples is {samples}, but P3O compares the two responses of a pair; set it to 2, and raise "
                "data.prompts_per_iteration for more pairs"
            )
        if self.normalizer != "row_sum":
            raise UsageError("model.normalizer does not apply to P3O's whole responses; leave it out")
        self.clipping = clipping
        self.plan = replace(self.plan, pairs=True)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        differences = leave_one_out(self.returns(rollouts), rollouts.group)
        return differences[:, None].expand_as(rollouts.mask)

    def log_ratios(self, minibatch: Rollouts, logprobs: Tensor) -> Tensor:
        assert minibatch.old_logprobs is not None
        return ((logprobs - minibatch.old_logprobs) * minibatch.mask).sum(1)

    def _of_responses(self, minibatch: Rollouts, logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ratios, old, advantages, present = super()._of_responses(minibatch, logprobs)
        if self.clipping == "joint":  # rows 2j and 2j + 1 are a pair; either stands for half of it
            own, other = ratios, ratios.view(-1, 2).flip(1).view(-1, 1)
            ratios, advantages = (own - other) * advantages.sign(), advantages.abs() / 2
        return ratios, old, advantages, present
