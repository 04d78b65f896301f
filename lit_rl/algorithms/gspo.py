"""GSPO: GRPO with one importance ratio for a whole response."""

from torch import Tensor

from lit_rl.algorithms.grpo import GRPO
from lit_rl.algorithms.response_ratio import ResponseRatio
from lit_rl.errors import UsageError
from lit_rl.ranges import NonNegative, Share
from lit_rl.rollouts import Rollouts


class GSPO(ResponseRatio, GRPO):
    """Clips the geometric mean of a response's importance ratios instead of each of them (2507.18071).

    The loss is -mean_i min(s_i A_i, clip(s_i) A_i), with log s_i the mean of log pi / pi_old over the response and A_i
    as in GRPO. On the weights that sampled, its gradient is that of GRPO with ``sequence_mean``, to rounding:
    GRPO's biases are its biases.

    Args:
        clip_low: clips s_i below 1 - clip_low; null does not.
        clip_high: clips s_i above 1 + clip_high; null does not. The paper's ranges are this narrow because s_i is a
            mean.

    Raises:
        UsageError: ``normalizer`` is set, the length is in the ratio; or ``rewards`` ``turns``.
    """

    def __init__(self, clip_low: Share | None = 3e-4, clip_high: NonNegative | None = 4e-4, **kwargs) -> None:
        super().__init__(clip_low=clip_low, clip_high=clip_high, **kwargs)
        if self.normalizer != "sequence_mean":
            raise UsageError("model.normalizer does not apply to GSPO, whose ratio contains the length; leave it out")

        if self.rewards != "response":
            raise UsageError("model.rewards turns does not apply to GSPO's ratio of whole responses; leave it out")

    def log_ratios(self, minibatch: Rollouts, logprobs: Tensor) -> Tensor:
        mask = minibatch.mask
        assert minibatch.old_logprobs is not None
        return ((logprobs - minibatch.old_logprobs) * mask).sum(1) / mask.sum(1).clamp(min=1)
