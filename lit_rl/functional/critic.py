"""Advantages from a critic's values, and the loss that fits these values."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_rl.functional.losses import rows_mean


def gae(rewards: Tensor, values: Tensor, mask: Tensor, decay: float | Tensor) -> Tensor:
    """Generalized advantages without discount (1506.02438): A_t = sum_l decay^l (r_{t+l} + V(s_{t+l+1}) - V(s_{t+l})).

    The sum is over the tokens in the mask; V is 0 after the last one. With ``decay`` 1 this is the reward-to-go minus
    V(s_t), which is unbiased for any V that is fixed before sampling. Below 1, an error e of V adds (1 - decay) sum_{l
    >= 1} decay^(l-1) e(s_{t+l}). The discount gamma is 1: with another discount the result is not the gradient of any
    objective (2506.02553).

    Args:
        rewards: [N, T] what each token earns; the reward of a token outside the mask goes to the token before it.
        values: [N, T] V(s_t).
        mask: [N, T] bool; tokens outside are skipped, without decay.
        decay: lambda, 0 to 1: a number, or one for each row [N].

    Returns:
        [N, T] in units of the reward, 0 outside the mask.
    """
    advantages = torch.zeros_like(rewards + values)
    behind = torch.zeros_like(advantages[:, 0])  # the advantage of the next token in the mask
    value = behind.clone()  # V of that token's state
    waiting = behind.clone()  # earned since the last token in the mask, going backwards
    for t in reversed(range(values.shape[1])):
        here = mask[:, t]
        waiting = waiting + rewards[:, t]
        advantage = waiting + value - values[:, t] + decay * behind
        advantages[:, t] = torch.where(here, advantage, 0.0)
        behind = torch.where(here, advantage, behind)
        value = torch.where(here, values[:, t], value)
        waiting = torch.where(here, 0.0, waiting)
    return advantages


def whiten(x: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> Tensor:
    """Shifts and scales x to mean 0 and standard deviation 1 over the mask: [N, T], 0 outside it.

    It is 0 where all x are equal. The mean and the deviation contain the very samples that are scaled, which biases the
    gradient.

    Args:
        x: [N, T].
        mask: [N, T] bool.
        total: adds up sums over processes, each with rows of its own.
    """
    own = torch.stack([mask.sum().to(x), (x * mask).sum()])
    count, summed = total(own)
    mean = summed / count
    centred = torch.where(mask, x - mean, 0.0)
    deviation = (total(centred.square().sum()) / (count - 1).clamp(min=1)).sqrt()
    rounding = 8 * torch.finfo(x.dtype).eps * mean.abs()  # all the deviation that equal numbers have
    return torch.where(deviation > rounding, centred / deviation, 0.0)


def value_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, mask: Tensor, denominator: Tensor, clip: float | None
) -> Tensor:
    """The value loss of PPO, half a squared error that is clipped around the old values.

    mean_i (1/d_i) sum_t max((V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2) / 2

    Args:
        values: [N, T] V in training.
        old_values: [N, T] V when the responses were sampled.
        targets: [N, T] R.
        mask: [N, T] bool.
        denominator: [N] d_i, of :func:`lit_rl.functional.losses.row_denominator`.
        clip: in units of the reward; None does not clip.
    """
    errors = (values - targets).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (near - targets).square())
    return rows_mean(errors / 2, mask, denominator)
