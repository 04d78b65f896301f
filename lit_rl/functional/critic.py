"""What a critic's values are good for, and what they are fitted by."""

import torch
from torch import Tensor

from lit_rl.functional.losses import rows_mean


def gae(rewards: Tensor, values: Tensor, mask: Tensor, decay: float) -> Tensor:
    """Generalized advantages (1506.02438), undiscounted: A_t = sum_l decay^l (r_{t+l} + V(s_{t+l+1}) - V(s_{t+l})).

    The sum is over the tokens in the mask, and V is 0 behind the last one.
    With ``decay`` 1 it is the reward-to-go minus V(s_t), unbiased for any V that is fixed before sampling; below 1, an
    error e of V adds (1 - decay) sum_{l >= 1} decay^(l-1) e(s_{t+l}). gamma is 1: with another one, the gradient is of
    nothing (2506.02553).

    Args:
        rewards: [N, T] what each token earns; the reward of a token outside the mask goes to the one before.
        values: [N, T] V(s_t).
        mask: [N, T] bool; tokens outside are passed over, at no decay.
        decay: lambda, 0..1.

    Returns:
        [N, T], 0 outside the mask.
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


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """(x - mean) / sd over the mask: [N, T], 0 outside it; the advantages' own samples are in mean and deviation."""
    count = mask.sum()
    centred = torch.where(mask, x - (x * mask).sum() / count, 0.0)
    deviation = (centred.square().sum() / (count - 1).clamp(min=1)).sqrt()
    return torch.where(deviation > 0, centred / deviation, 0.0)


def value_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, mask: Tensor, denominator: Tensor, clip: float | None
) -> Tensor:
    """mean_i (1/d_i) sum_t max((V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2) / 2, PPO's.

    Args:
        values, old_values, targets, mask: [N, T].
        denominator: [N], of :func:`lit_rl.functional.losses.row_denominator`.
        clip: None leaves the values free.
    """
    errors = (values - targets).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (near - targets).square())
    return rows_mean(errors / 2, mask, denominator)
