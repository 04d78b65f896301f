"""CISPO: GRPO that clips the weight of a token and keeps its gradient."""

from torch import Tensor

from lit_rl.algorithms.grpo import GRPO
from lit_rl.functional.losses import Normalizer, clipped_weight_loss, row_denominator
from lit_rl.ranges import NonNegative, Share
from lit_rl.rollouts import Rollouts


class CISPO(GRPO):
    """Weighs each token's score by its clipped importance ratio, which has no gradient itself (2506.13585).

    The loss is -mean_i (1/d_i) sum_t sg(clip(rho_t)) A_i log pi(a_t | s_t), with A_i as in GRPO. No token's gradient is
    removed. On the weights that sampled, the gradient is that of DAPO's loss, with GRPO's biases.

    ``policy/clip_fraction`` counts the tokens whose gradient PPO's clipping would have removed at the same ranges.

    Args:
        normalizer: see GRPO.
        clip_low: raises weights below 1 - clip_low to it; null, the paper's choice, does not.
        clip_high: lowers weights above 1 + clip_high to it; null does not. The paper tunes it and names no value.
    """

    def __init__(
        self,
        normalizer: Normalizer = "token_mean",
        clip_low: Share | None = None,
        clip_high: NonNegative | None = 4.0,
        **kwargs,
    ) -> None:
        super().__init__(normalizer=normalizer, clip_low=clip_low, clip_high=clip_high, **kwargs)

    def loss(self, minibatch: Rollouts, logprobs: Tensor) -> dict[str, Tensor]:
        terms, mask = super().loss(minibatch, logprobs), minibatch.mask
        assert minibatch.advantages is not None and minibatch.old_logprobs is not None
        denominator = row_denominator(mask, self.normalizer, minibatch.window_tokens, self.plan.max_new_tokens)
        terms["policy"] = clipped_weight_loss(
            logprobs,
            minibatch.old_logprobs,
            minibatch.advantages,
            mask,
            denominator,
            self.clip_low,
            self.clip_high,
        )
        return terms
