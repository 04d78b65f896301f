"""Statistics that tell a run that goes wrong from one that learns.

They are computed from sums, so that the sums of several ranks can be added.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.functional.advantages import group_sum
from lit_rl.functional.chosen import packed


class Agreement(NamedTuple):
    """How an estimate x agrees with its target y over n pairs; NaN where a denominator is 0 up to rounding.

    Attributes:
        explained_variance: 1 - Var(y - x) / Var(y); 1 is perfect up to a constant, 0 as good as any constant.
        bias: mean(x - y) / sd(y).
        slope: Cov(x, y) / Var(x), of y = a + slope x by least squares; 1 is calibrated.
        correlation: Pearson's, Cov(x, y) / (sd(x) sd(y)).
        spread: sd(y).
    """

    explained_variance: float
    bias: float
    slope: float
    correlation: float
    spread: float


def pair_sums(x: Tensor, y: Tensor) -> Tensor:
    """The sums that :func:`agreement` takes: (n, sum x, sum y, sum x^2, sum y^2, sum x y), [6] float64.

    x and y have any shape, the same for both.
    """
    x, y = x.double().flatten(), y.double().flatten()
    sums = [x.sum(), y.sum(), x.square().sum(), y.square().sum(), (x * y).sum()]
    return torch.stack([torch.tensor(len(x), dtype=x.dtype, device=x.device), *sums])


def agreement(sums: Tensor) -> Agreement:
    """The agreement of x with y, from their :func:`pair_sums` [6]."""
    n = sums[0]
    x, y, xx, yy, xy = sums[1:] / n
    covariance = xy - x * y
    spread_x, spread_y = _beyond_rounding(xx - x * x, xx), _beyond_rounding(yy - y * y, yy)
    explained = 1 - (xx - x * x + spread_y - 2 * covariance) / spread_y
    correlation = covariance / (spread_x * spread_y).sqrt()
    found = torch.stack(
        [explained, (x - y) / spread_y.sqrt(), covariance / spread_x, correlation.clamp(-1, 1), spread_y.sqrt()]
    )
    return Agreement(*found.tolist())


def _beyond_rounding(variance: Tensor, mean_square: Tensor) -> Tensor:
    """The variance, NaN where a difference of float64 sums cannot tell it from 0."""
    return torch.where(variance > 1e-12 * mean_square, variance, torch.nan)


def ordered_right(guess: Tensor, truth: Tensor, group: Tensor, margin: float) -> Tensor:
    """Whether guesses are in the order of the truths, for pairs of a group whose truths differ by more than ``margin``.

    Returns:
        [pairs] 1 where they are, 1/2 where the guesses are equal, 0 otherwise; from inputs [N] each.
    """
    first, second = torch.triu_indices(len(group), len(group), 1, device=group.device)
    difference = truth[first] - truth[second]
    kept = (group[first] == group[second]) & (difference.abs() > margin)
    return ((guess[first] - guess[second])[kept].sign() * difference[kept].sign() + 1) / 2


def thirds(mask: Tensor) -> Tensor:
    """The third of its row's n tokens that each token lies in, floor(3 t / n): [N, T], -1 outside the mask."""
    third = 3 * (mask.cumsum(1) - 1) // mask.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mask, third, -1)


def squared_errors(returns: Tensor) -> Tensor:
    """The squared standard error of each row's mean, s^2 / K: [C, K] -> [C].

    s^2 is the sample variance (K - 1). Unbiased for the variance of the mean of K independent returns; K is at least 2.
    """
    k = returns.shape[1]
    return (returns - returns.mean(1, keepdim=True)).square().sum(1) / (k * (k - 1))


def half_means(returns: Tensor) -> tuple[Tensor, Tensor]:
    """The means of the first floor(K / 2) returns of each row, and of its next floor(K / 2): [C, K] -> [C], [C]."""
    half = returns.shape[1] // 2
    return returns[:, :half].mean(1), returns[:, half : 2 * half].mean(1)


def spearman_brown(correlation: float, factor: float) -> float:
    """The reliability f r / (1 + (f - 1) r) of a mean over f times as many draws, if two means correlate at r."""
    scale = 1 + (factor - 1) * correlation
    return factor * correlation / scale if scale else -torch.inf


def alike_probability(rewards: Tensor, samples: int) -> Tensor:
    """The probability sum_v P(r = v)^G that all G rewards of a prompt are equal; p^G + (1 - p)^G for rewards 0 and 1.

    It is estimated without bias, by the share of the subsets of size G of the K rewards that are all equal: sum_v
    C(n_v, G) / C(K, G), with n_v rewards equal to v. (A power of an estimate of p would be biased.)

    Args:
        rewards: [P, K], independent given the prompt, K at least G.
        samples: G.

    Returns:
        [P] float64.
    """
    # the mean over rewards of the chance that G - 1 of the other K - 1 equal it
    others = (rewards[:, :, None] == rewards[:, None, :]).sum(2).double() - 1
    drawn = torch.arange(samples - 1, device=rewards.device)
    return ((others[..., None] - drawn).clamp(min=0) / (rewards.shape[1] - 1 - drawn)).prod(2).mean(1)


def solved_rows(rewards: Tensor, group: Tensor, best: float) -> Tensor:
    """Whether all rewards of a row's group are at least ``best``: rewards [N], group [N] -> [N] bool."""
    return group_sum((rewards < best).double(), group) == 0


def distinct_responses(ids: Tensor, mask: Tensor, group: Tensor) -> int:
    """The number of different responses, counted in each group and added up.

    Args:
        ids: [N, T].
        mask: [N, T] bool, the tokens that the policy chose; the rest is ignored.
        group: [N].
    """
    chosen = packed(torch.where(mask, ids, -1), mask)
    return len(torch.unique(torch.cat([group[:, None], chosen], 1), dim=0))
