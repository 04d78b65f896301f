"""What a sample of gradients says of the gradient and of its noise."""

from typing import NamedTuple

from torch import Tensor


class GradientStatistics(NamedTuple):
    """Estimates from n independent gradients g_i with mean G and covariance Sigma.

    Attributes:
        trace_cov: tr Sigma, of one g_i.
        norm_sq: |G|^2, unbiased, so possibly negative.
        relative_variance: tr Sigma / |G|^2.
        snr: n |G|^2 / tr Sigma, of the mean of the n.
    """

    trace_cov: Tensor
    norm_sq: Tensor
    relative_variance: Tensor
    snr: Tensor


def gradient_statistics(sum_of_squares: Tensor, total: Tensor, n: int) -> GradientStatistics:
    """tr Sigma = (sum |g_i|^2 - n |gbar|^2) / (n - 1) and |G|^2 = |gbar|^2 - tr Sigma / n (1812.06162).

    Args:
        sum_of_squares: sum_i |g_i|^2, a number.
        total: sum_i g_i [D].
        n: how many, at least two.
    """
    mean_sq = (total.double() / n).square().sum()
    trace_cov = ((sum_of_squares.double() - n * mean_sq) / (n - 1)).clamp(min=0)
    norm_sq = mean_sq - trace_cov / n
    return GradientStatistics(trace_cov, norm_sq, trace_cov / norm_sq, n * norm_sq / trace_cov)
