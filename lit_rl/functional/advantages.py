"""Response-level advantages: what the return of a response is compared with."""

import torch
from torch import Tensor

from lit_rl.functional.chosen import turn_ends


def leave_one_out(returns: Tensor, group: Tensor) -> Tensor:
    """The advantages of RLOO (2402.14740): A_i = r_i - the mean of the other returns of its group.

    Args:
        returns: [N], in units of the reward.
        group: [N] the group of each row; a group has at least two rows.

    Returns:
        [N]; exactly 0 in a group whose returns are all equal.
    """
    count = group_sum(torch.ones_like(returns), group)
    return group_relative(returns, group) * count / (count - 1)


def group_relative(returns: Tensor, group: Tensor, scale_by_std: bool = False) -> Tensor:
    """The advantages of GRPO (2402.03300): A_i = r_i - the mean of its group, over the standard deviation if asked.

    Without the division these are Dr.GRPO's advantages (2503.20783), (1 - 1/G) times :func:`leave_one_out`. The
    deviation is that of a sample (n - 1), as in public implementations, and nothing is added to it.

    Args:
        returns: [N], in units of the reward.
        group: [N] the group of each row.

    Returns:
        [N]; exactly 0 in a group whose returns are all equal.
    """
    count = group_sum(torch.ones_like(returns), group)
    centred = returns - group_sum(returns, group) / count
    centred = torch.where(has_spread(returns, group), centred, 0.0)
    if not scale_by_std:
        return centred
    deviation = (group_sum(centred.square(), group) / (count - 1)).sqrt()
    return torch.where(deviation > 0, centred / deviation, 0.0)


def weighted_baseline(returns: Tensor, weights: Tensor, leave_one_out: bool = True) -> Tensor:
    """b_i = sum_j w_j r_j / sum_j w_j over the other responses j of the group: [P, G, T].

    Where all these weights are 0, it is their plain mean.

    Args:
        returns: [P, G], in units of the reward.
        weights: [P, G, T] of each response at each position, at least 0.
        leave_one_out: false takes the response itself among them.

    Returns:
        Exactly the return in a group whose returns are all equal.
    """
    chosen = torch.ones(2 * returns.shape[1:]).to(returns)
    chosen = chosen.fill_diagonal_(0) if leave_one_out else chosen
    first = returns[:, :1]
    above, weights = returns - first, weights.to(returns)
    sums, total = chosen @ (above[..., None] * weights), chosen @ weights
    plain = (above @ chosen / chosen.sum(0))[..., None]
    return first[..., None] + torch.where(total > 0, sums / total, plain)


def turn_relative(rewards: Tensor, mask: Tensor, group: Tensor, scale_by_std: bool = False) -> Tensor:
    """The advantages of GRPO with rewards for parts of a response (2402.03300, process supervision), here for turns.

    A_t is the sum of r~ over the turn of t and the later ones. r~ is the turn's reward relative to those of all turns
    of the group, see :func:`group_relative`.

    Args:
        rewards: [N, T] in units of the reward, each at the last token of its turn.
        mask: [N, T] bool.
        group: [N] the group of each row.

    Returns:
        [N, T]; what stands outside the mask says nothing.
    """
    ends = turn_ends(mask)
    relative = torch.zeros_like(rewards)
    relative[ends] = group_relative(rewards[ends], group[:, None].expand_as(ends)[ends], scale_by_std)
    return relative.flip(1).cumsum(1).flip(1)


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """The sum of x [N] over the group of each row, for every row: [N]."""
    return x.new_zeros(int(group.max()) + 1).index_add(0, group, x)[group]


def zero_advantage_share(advantages: Tensor, group: Tensor) -> Tensor:
    """The share of groups in which all advantages [N, T] are 0. Nothing is learned from these."""
    live = group_sum((advantages != 0).any(1).to(advantages), group) > 0
    weight = 1 / group_sum(torch.ones_like(group, dtype=advantages.dtype), group)
    return ((~live) * weight).sum() / weight.sum()


def has_spread(x: Tensor, group: Tensor) -> Tensor:
    """Whether x [N] is not the same in the whole group of each row: [N] bool."""
    size = int(group.max()) + 1
    high = x.new_full((size,), -torch.inf).scatter_reduce(0, group, x, "amax")
    low = x.new_full((size,), torch.inf).scatter_reduce(0, group, x, "amin")
    return (high > low)[group]
