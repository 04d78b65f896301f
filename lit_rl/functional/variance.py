"""What a sample of gradients says about the gradient and its noise."""

from typing import NamedTuple

from torch import Tensor


class GradientStatistics(NamedTuple):
    """Estimates from n independent gradients g_i with mean G and covariance Sigma.

    Attributes:
        trace_cov: tr Sigma, the noise of one g_i: its mean squared distance from G.
        norm_sq: |G|^2; unbiased, so that it can be negative.
        relative_variance: tr Sigma / |G|^2.
        snr: n |G|^2 / tr Sigma, the signal-to-noise ratio of the mean of the n gradients.
    """

    trace_cov: Tensor
    norm_sq: Tensor
    relative_variance: Tensor
    snr: Tensor


def gradient_statistics(sum_of_squares: Tensor, total: Tensor, n: int) -> GradientStatistics:
    """Estimates noise and size of a gradient from sums (1812.06162).

    tr Sigma = (sum |g_i|^2 - n |gbar|^2) / (n - 1), and |G|^2 = |gbar|^2 - tr Sigma / n.

    Args:
        sum_of_squares: sum_i |g_i|^2, a number.
        total: sum_i g_i [D].
        n: how many gradients, at least two.
    """
    mean_sq = (total.double() / n).square().sum()
    trace_cov = ((sum_of_squares.double() - n * mean_sq) / (n - 1)).clamp(min=0)
    norm_sq = mean_sq - trace_cov / n
    return GradientStatistics(trace_cov, norm_sq, trace_cov / norm_sq, n * norm_sq / trace_cov)


def signal_share(norm_sq: float, noise: float) -> float:
    """|G|^2 / (|G|^2 + noise): how much of the squared length of a noisy gradient is signal, from 0 to 1.

    If the curvature of J is at most L, a step eta g along a gradient g of mean G gains on average at least
    eta |G|^2 - eta^2 L (|G|^2 + noise) / 2 (descent lemma). This bound is highest at eta = share / L.

    Args:
        norm_sq: an estimate of |G|^2; the share is 0 where it is negative.
        noise: E|g - G|^2; of the mean of n gradients tr Sigma / n.
    """
    return norm_sq / (norm_sq + noise) if norm_sq > 0 else 0.0
