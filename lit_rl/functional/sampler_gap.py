"""What lies between the probabilities of an engine that samples and those of the weights in training.

Both come from the same weights, and differ by how they are computed: by rounding in float32, by more in bfloat16.
"""

import torch
from torch import Tensor


def gap(logprobs: Tensor, sampler: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of log pi_sampler - log pi over the mask, and the largest ratio pi / pi_sampler in it.

    On tokens that the sampler drew, the mean of the former estimates KL(pi_sampler || pi) of a token, in nats.

    Args:
        logprobs: [N, T] log pi, of the weights in training.
        sampler: [N, T] log pi_sampler.
        mask: [N, T] bool.
    """
    log_ratio = torch.where(mask, logprobs - sampler, 0.0).double()
    return -log_ratio.sum(), log_ratio.masked_fill(~mask, -torch.inf).amax().exp()


def truncated_weights(logprobs: Tensor, sampler: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Truncated importance weights min(pi / pi_sampler, cap) of tokens: [N, T], 1 outside the mask.

    Truncation bounds the variance at the price of a bias (Ionides 2008, doi:10.1198/106186008X320456); for engines that
    sample for a trainer, see Yao et al. 2025, https://fengyao.notion.site/off-policy-rl.

    Args:
        logprobs: [N, T] log pi, of the weights in training.
        sampler: [N, T] log pi_sampler.
        mask: [N, T] bool.
        cap: C.
    """
    return torch.where(mask, (logprobs - sampler).exp().clamp(max=cap), 1.0)
