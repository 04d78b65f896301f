"""TRePO's advantages (2506.02553), from values at some prefixes and a rule that fills in the tokens between them.

The prefixes of a response end before tokens c_0 = 0 < c_1 < ... < c_m. M_k is an unbiased estimate of the value of the
k-th prefix. After the last segment comes the reward itself, M_{m+1} = r. A token t lies in segment k if c_k <= t <
c_{k+1}. The segment has the length L_k = c_{k+1} - c_k (the last one ends with the response), and t lies at alpha = (t
- c_k) / L_k. Only tokens that the policy chose are counted, none that an environment speaks in between. With g_t =
E[r psi_t], the part of the gradient that belongs to position t:

====================  ==========================================  =========================
fill                  A_t                                         E[A_t psi_t]
====================  ==========================================  =========================
``segment_td``        M_{k+1} - M_k  (VinePPO, 2410.01679)         g_t
``hold_mc``           r - M_k                                     g_t
``mix``               (M_{k+1} - M_k) + mix (r - M_{k+1})         g_t
``all_positions``     M_{t+1} - M_t, a cut before every token     g_t
``linear_value_mc``   r - ((1 - alpha) M_k + alpha M_{k+1})       (1 - alpha) g_t
``linear_value_td``   (M_{k+1} - M_k) / L_k                       g_t / L_k
``linear_advantage``  exact advantages, interpolated              g_t if t is exact, else 0
``masked_advantage``  exact advantage / p_t, else 0               g_t if p_t > 0
====================  ==========================================  =========================

The advantage of a token is exact, M_{t+1} - M_t, if there is a cut before t, and a cut before t + 1 or t is the last
token. ``linear_advantage`` follows the paper's words; before the first exact token and after the last one it holds the
nearest advantage. p_t is the probability that t is exact. The factors of the ``linear_*`` rules hold for responses of
one length; otherwise alpha and L_k depend on the end of the response, which biases them further.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from lit_rl.functional.chosen import before, packed, unpacked

Fill = Literal[
    "segment_td",
    "hold_mc",
    "mix",
    "all_positions",
    "linear_value_mc",
    "linear_value_td",
    "linear_advantage",
    "masked_advantage",
]


def prefix_advantages(
    rewards: Tensor,
    cuts: Tensor,
    values: Tensor,
    mask: Tensor,
    fill: Fill = "segment_td",
    mix: float = 0.0,
    selection_probability: Tensor | float | None = None,
) -> Tensor:
    """The advantages of a fill rule, by the table above.

    Args:
        rewards: [N] the returns of the responses.
        cuts: [N, M] the column of the token that each prefix ends before: ascending, the first 0, the others in the
            mask, padded with -1.
        values: [N, M] value estimates of these prefixes; those of the padding are ignored.
        mask: [N, T] the tokens that the policy chose; the last of them ends the response.
        fill: the rule.
        mix: the constant of ``mix``: 0 is ``segment_td``, 1 is ``hold_mc``.
        selection_probability: p_t of ``masked_advantage``, a number or [N, T].

    Returns:
        [N, T] in units of the reward, 0 outside the mask.

    Raises:
        ValueError: an unknown rule, a row whose first cut is not 0, cuts missing for ``all_positions``, or no
            ``selection_probability`` for ``masked_advantage``.
    """
    if fill not in get_args(Fill):
        raise ValueError(f"fill is {fill!r}; choose one of {', '.join(get_args(Fill))}")
    if bool((cuts[:, 0] != 0).any()):
        raise ValueError("cuts: the first of each row is 0, the prompt")
    n, width = mask.shape
    t = torch.arange(width, device=mask.device)
    own, end = mask, mask.sum(1)  # from here on tokens are numbered among those of the mask
    mask = t < end[:, None]
    cuts = torch.where(cuts >= 0, before(own).gather(1, cuts.clamp(min=0, max=width - 1)), -1)
    valid = (cuts >= 0) & (cuts < end[:, None])
    is_cut = torch.zeros(n, width + 1, dtype=torch.bool, device=mask.device)
    is_cut.scatter_(1, torch.where(valid, cuts, width), True)
    is_cut = is_cut[:, :width]
    if fill == "all_positions" and not bool((is_cut | ~mask).all()):
        raise ValueError("fill all_positions takes a value before every token: cut with Stride(1)")
    # behind the row's last cut stands the reward, at the response's end
    last = valid.sum(1, keepdim=True)
    starts = torch.cat([cuts, cuts.new_full((n, 1), -1)], 1).scatter(1, last, end[:, None])
    points = torch.cat([values, values.new_zeros(n, 1)], 1).scatter(1, last, rewards.to(values)[:, None])
    segment = (is_cut.long().cumsum(1) - 1).clamp(min=0)
    here, following = points.gather(1, segment), points.gather(1, segment + 1)
    start, length = starts.gather(1, segment), (starts[:, 1:] - starts[:, :-1]).gather(1, segment)
    step = following - here
    returned = rewards.to(values)[:, None]
    if fill in ("segment_td", "all_positions"):
        advantages = step
    elif fill == "hold_mc":
        advantages = returned - here
    elif fill == "mix":
        advantages = step + mix * (returned - following)
    elif fill == "linear_value_mc":
        alpha = (t - start) / length.clamp(min=1).to(values)
        advantages = returned - torch.lerp(here, following, alpha)
    elif fill == "linear_value_td":
        advantages = step / length.clamp(min=1)
    elif fill == "linear_advantage":
        advantages = _interpolate(step, exact_tokens(is_cut, end))
    else:
        if selection_probability is None:
            raise ValueError("fill masked_advantage takes selection_probability")
        p = torch.as_tensor(selection_probability, dtype=values.dtype, device=values.device).expand_as(step)
        exact = exact_tokens(is_cut, end)
        advantages = torch.where(exact, step / torch.where(exact, packed(p, own), 1), 0)
    return unpacked(advantages, own)


def exact_tokens(cuts: Tensor, lengths: Tensor) -> Tensor:
    """The tokens whose advantage is exact [N, T]: with a cut before t, and a cut before t + 1 or t the last token.

    Args:
        cuts: [N, T] bool, of chosen tokens without gaps.
        lengths: [N].
    """
    return cuts & _next_or_last(cuts, lengths)


def exact_probability(chances: Tensor, lengths: Tensor) -> Tensor:
    """The probability [N, T] that :func:`exact_tokens` holds, if cuts are independent and position 0 is always cut.

    Args:
        chances: [N, T] probability of a cut before each token, of chosen tokens without gaps.
        lengths: [N].
    """
    chances = chances.clone()
    chances[:, 0] = 1
    return chances * _next_or_last(chances, lengths)


def _next_or_last(x: Tensor, lengths: Tensor) -> Tensor:
    """x at t + 1, and 1 where t is the last token."""
    following = torch.cat([x[:, 1:], torch.ones_like(x[:, :1])], 1)
    last = torch.arange(x.shape[1], device=x.device) == lengths[:, None] - 1
    return torch.where(last, torch.ones_like(x), following)


def _interpolate(x: Tensor, known: Tensor) -> Tensor:
    """x [N, T] linearly between the known positions, the nearest held outside; 0 in a row without any."""
    width = x.shape[1]
    t = torch.arange(width, device=x.device).expand_as(x)
    left = torch.where(known, t, -1).cummax(1).values
    right = torch.where(known, t, width).flip(1).cummin(1).values.flip(1)
    low = torch.where(left < 0, right, left).clamp(max=width - 1)
    high = torch.where(right == width, left, right).clamp(min=0)
    weight = (t - low) / (high - low).clamp(min=1).to(x)
    between = torch.lerp(x.gather(1, low), x.gather(1, high), weight)
    return torch.where(known.any(1, keepdim=True), between, 0)
