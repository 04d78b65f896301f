"""The losses that algorithms share, from log-probabilities of tokens, and what they are divided by."""

from typing import Literal

import torch
from torch import Tensor

Normalizer = Literal["row_sum", "sequence_mean", "token_mean", "constant"]


def row_denominator(mask: Tensor, normalizer: Normalizer, window_tokens: float | None, constant: float) -> Tensor:
    """d_i [N], such that a loss is mean_i (1/d_i) sum_t l_it.

    - ``row_sum``: 1, the policy gradient itself.
    - ``sequence_mean``: the length of the row, GRPO's; it gives the tokens of long responses less weight (2503.20783).
    - ``token_mean``: the mean length over one optimizer step, DAPO's (2503.14476).
    - ``constant``: a number, Dr.GRPO's (2503.20783).

    Args:
        mask: [N, T] bool.
        window_tokens: mean number of response tokens per row over one optimizer step and all ranks; None takes these
            rows.
        constant: the number for ``constant``.
    """
    lengths = mask.sum(1).float()
    if normalizer == "sequence_mean":
        return lengths.clamp(min=1)
    if normalizer == "token_mean":
        return torch.full_like(lengths, window_tokens) if window_tokens else lengths.mean().expand_as(lengths)
    return torch.full_like(lengths, constant if normalizer == "constant" else 1.0)


def policy_gradient_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    denominator: Tensor,
    clip_low: float | None = None,
    clip_high: float | None = None,
) -> Tensor:
    """The clipped loss of PPO (1707.06347), with two clipping ranges after DAPO (2503.14476).

    -mean_i (1/d_i) sum_t min(rho_t A_t, clip(rho_t, 1 - low, 1 + high) A_t), where rho_t = pi(a_t|s_t) /
    pi_old(a_t|s_t). On the weights that sampled, rho = 1 and the gradient is that of the score function, -mean_i
    (1/d_i) sum_t A_t psi_t, whether clipped or not.

    Args:
        logprobs: [N, T] log pi, with a gradient.
        old_logprobs: [N, T] log pi_old.
        advantages: [N, T] A_t.
        mask: [N, T] bool.
        denominator: [N] d_i, of :func:`row_denominator`.
        clip_low: None does not clip below.
        clip_high: None does not clip above.
    """
    ratio = (logprobs - old_logprobs).exp()
    surrogate = ratio * advantages
    if clip_low is not None or clip_high is not None:
        surrogate = torch.minimum(surrogate, _clip(ratio, clip_low, clip_high) * advantages)
    return -rows_mean(surrogate, mask, denominator)


def clipped_weight_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    denominator: Tensor,
    clip_low: float | None = None,
    clip_high: float | None = None,
) -> Tensor:
    """The loss of CISPO (2506.13585): -mean_i (1/d_i) sum_t sg(clip(rho_t, 1 - low, 1 + high)) A_t log pi(a_t|s_t).

    Unlike in :func:`policy_gradient_loss`, whose arguments it takes, a clipped token keeps a gradient.
    """
    weights = _clip((logprobs - old_logprobs).exp(), clip_low, clip_high).detach()
    return -rows_mean(weights * advantages * logprobs, mask, denominator)


def clipped_fraction(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, low: float | None, high: float | None
) -> Tensor:
    """The share of tokens whose gradient the clipping removes."""
    ratio = (logprobs - old_logprobs).exp()
    removed = (_clip(ratio, low, high) * advantages < ratio * advantages) & mask
    return removed.sum() / mask.sum().clamp(min=1)


def kl_loss(
    logprobs: Tensor, reference: Tensor, mask: Tensor, denominator: Tensor, kind: Literal["k2", "k3"]
) -> Tensor:
    """A penalty whose on-policy gradient pulls pi towards the reference, per token with d = log pi - log pi_ref.

    - ``k2``: d^2 / 2; its gradient is that of KL(pi || ref).
    - ``k3``: exp(-d) - 1 + d; its gradient is that of KL(ref || pi).

    (k1 = d has gradient 0 in expectation; it is offered as a part of the reward instead.)

    Args:
        logprobs: [N, T] log pi, with a gradient.
        reference: [N, T] log pi_ref.
        mask: [N, T] bool.
        denominator: [N] d_i, of :func:`row_denominator`.
    """
    d = logprobs - reference
    per_token = d.square() / 2 if kind == "k2" else (-d).exp() - 1 + d
    return rows_mean(per_token, mask, denominator)


def rows_mean(per_token: Tensor, mask: Tensor, denominator: Tensor) -> Tensor:
    """mean_i (1/d_i) sum_t x_it, over the mask."""
    return ((per_token * mask).sum(1) / denominator).mean()


def _clip(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    return ratio.clamp(min=-torch.inf if low is None else 1 - low, max=torch.inf if high is None else 1 + high)
