"""Where in a response its reward is paid: token rewards [N, T] with the same sum, whatever the placement.

If tokens are weighted by the full return, all placements of a reward give the same update. With reward-to-go, a
placement that depends on later tokens is biased: a token does not get what was paid before it (2506.02553).
"""

import torch
from torch import Tensor

from lit_rl.functional.chosen import packed, unpacked


def last(total: Tensor, mask: Tensor) -> Tensor:
    """Pays the whole reward at the last token in the mask.

    Args:
        total: [N] the response's reward.
        mask: [N, T] bool.

    Returns:
        [N, T]; nothing where a row has no token.
    """
    return total[:, None] * _last(mask)


def weighted(total: Tensor, weights: Tensor, mask: Tensor, beta: float = 1.0) -> Tensor:
    """Pays beta w_t / sum w of the reward at token t, and the rest at the last token.

    With the attention of a reward model as weights it is ABC's redistribution (2402.00782). It is not causal if the
    weights depend on the whole response.

    Args:
        total: [N].
        weights: [N, T], not negative.
        mask: [N, T] bool.
        beta: 0 to 1.
    """
    inside = torch.where(mask, weights, 0.0)
    sums = inside.sum(1, keepdim=True)
    share = torch.where(sums > 0, inside / sums, 0.0)
    return completed(beta * total[:, None] * share, total, mask)


def uniform(total: Tensor, mask: Tensor) -> Tensor:
    """Pays the same at each token, r / length. Not causal: the length is known only at the end."""
    return weighted(total, torch.ones_like(mask, dtype=total.dtype), mask)


def causal(earned: Tensor, total: Tensor, mask: Tensor) -> Tensor:
    """Pays each token what it is known to earn at once, and the rest at the last token.

    Args:
        earned: [N, T] a function of s_t and a_t alone, from the oracle.
        total: [N].
        mask: [N, T] bool.
    """
    return completed(torch.where(mask, earned, 0.0), total, mask)


def shuffled(rewards: Tensor, total: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
    """The given token rewards in another order within each response: the same sum, no information about positions.

    Args:
        rewards: [N, T], with the sum ``total``.
        total: [N].
        mask: [N, T] bool.
        keys: [N, T] random numbers below 1, whose order is the new one.
    """
    order = torch.where(mask, keys, 2.0).argsort(1)  # the response's tokens first, shuffled
    slots = (~mask).long().argsort(dim=1, stable=True)  # where they are
    moved = torch.zeros_like(rewards).scatter(1, slots, rewards.gather(1, order))
    return completed(torch.where(mask, moved, 0.0), total, mask)


def potential(total: Tensor, phi: Tensor, mask: Tensor) -> Tensor:
    """Pays Phi(s_{t+1}) - Phi(s_t) at token t, and the reward at the last one; Phi is taken relative to the prompt's.

    The potential is 0 at the start and at the end, so the sum stays the same. Reward-to-go is r - Phi(s_t): the same
    gradient with another baseline.

    Args:
        total: [N].
        phi: [N, T] Phi(s_t), a function of the prefix.
        mask: [N, T] bool.
    """
    alone = packed(phi, mask)
    relative = packed(torch.where(mask, phi - alone[:, :1], 0.0), mask)
    behind = torch.cat([relative[:, 1:], torch.zeros_like(relative[:, :1])], 1)
    return completed(unpacked(behind - relative, mask), total, mask)


def completed(rewards: Tensor, total: Tensor, mask: Tensor) -> Tensor:
    """Token rewards, with what is missing to the total added at the last token in the mask: [N, T].

    They are cut to the total's last binary digit. Where none has the other sign than the total, and together they are
    not more, they therefore sum to the total to the last bit, in whatever order.
    """
    digit = torch.ldexp(torch.full_like(total, torch.finfo(total.dtype).eps), torch.frexp(total).exponent - 1)[:, None]
    rewards = (rewards / digit).trunc() * digit
    return rewards + last(total - rewards.sum(1), mask)


def _last(mask: Tensor) -> Tensor:
    """True at the last token in the mask: [N, T]."""
    return mask & (mask.flip(1).cumsum(1).flip(1) == 1)
