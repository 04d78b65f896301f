"""Response-level advantages: what a response's return is compared with."""

import torch
from torch import Tensor


def leave_one_out(returns: Tensor, group: Tensor) -> Tensor:
    """RLOO (2402.14740): A_i = r_i - mean of the other returns of its group.

    Args:
        returns: [N].
        group: [N] group of each row; a group has at least two rows.

    Returns:
        [N]; exactly 0 in a group without spread.
    """
    count = group_sum(torch.ones_like(returns), group)
    return group_relative(returns, group) * count / (count - 1)


def group_relative(returns: Tensor, group: Tensor, scale_by_std: bool = False) -> Tensor:
    """GRPO (2402.03300): A_i = r_i - mean of its group, divided by the group's standard deviation if asked.

    Without the scaling it is Dr.GRPO's (2503.20783), (1 - 1/G) times :func:`leave_one_out`. The deviation is the sample
    one (n - 1), as in the public implementations.

    Args:
        returns: [N].
        group: [N] group of each row.

    Returns:
        [N]; exactly 0 in a group without spread (no epsilon is added to the deviation).
    """
    count = group_sum(torch.ones_like(returns), group)
    centred = returns - group_sum(returns, group) / count
    centred = torch.where(_has_spread(returns, group), centred, 0.0)
    if not scale_by_std:
        return centred
    deviation = (group_sum(centred.square(), group) / (count - 1)).sqrt()
    return torch.where(deviation > 0, centred / deviation, 0.0)


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """The sum of x [N] over each row's group, for every row: [N]."""
    return x.new_zeros(int(group.max()) + 1).index_add(0, group, x)[group]


def zero_advantage_share(advantages: Tensor, group: Tensor) -> Tensor:
    """The share of groups in which every advantage [N, T] is 0: they teach nothing."""
    live = group_sum((advantages != 0).any(1).to(advantages), group) > 0
    weight = 1 / group_sum(torch.ones_like(group, dtype=advantages.dtype), group)
    return ((~live) * weight).sum() / weight.sum()


def _has_spread(x: Tensor, group: Tensor) -> Tensor:
    size = int(group.max()) + 1
    high = x.new_full((size,), -torch.inf).scatter_reduce(0, group, x, "amax")
    low = x.new_full((size,), torch.inf).scatter_reduce(0, group, x, "amin")
    return (high > low)[group]
