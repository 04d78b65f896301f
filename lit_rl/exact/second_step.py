"""Expectations behind an optimizer step: the responses were sampled by weights that have moved since.

Only here do importance ratios differ from 1, so that clipping and the kind of ratio show.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_rl.exact.certificate import random_policy
from lit_rl.exact.formulas import Formula
from lit_rl.exact.tree import Tree, grow
from lit_rl.policy import TabularPolicy
from lit_rl.tasks import PositionTask

MOVED = 0.5  # standard deviation of what a logit has moved by
# ratios along every leaf [S, T], whether the advantage is positive: the weight of each psi, in units of the advantage
Weight = Callable[[Tensor, bool], Tensor]


def earlier_policy(task: PositionTask) -> TabularPolicy:
    """The certificate's policy before it moved: its logits plus noise from N(0, 1/4), the same for the same sizes."""
    policy = random_policy(task)
    for parameter in policy.parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3), dtype=parameter.dtype)
        parameter.data += MOVED * noise
    return policy


def of_pairs(name: str, weight: Weight, scale_by_std: bool = False) -> Formula:
    """Two responses a prompt, sampled by :func:`earlier_policy`: E[sum_t w_t A psi_t] with A = r - r'.

    Args:
        weight: w.
        scale_by_std: take (r - r') / 2 over the pair's standard deviation instead, which is +-1/sqrt(2) or 0.
    """

    def gradient(tree: Tree) -> Tensor:
        before = grow(earlier_policy(tree.task), tree.task)
        p, difference = before.probability(), tree.rewards[:, None] - tree.rewards
        if scale_by_std:
            difference = difference.sign() / 2**0.5
        gains, losses = difference.clamp(min=0) @ p, (-difference).clamp(min=0) @ p
        ratios = tree.along(tree.logprobs - before.logprobs, tree.ids, tree.lengths).exp()  # 1 behind the end
        weights = gains[:, None] * weight(ratios, True) - losses[:, None] * weight(ratios, False)
        return tree.score_gradient((p / tree.probability())[:, None] * weights)

    return Formula(name, gradient)


def joint(high: float) -> Formula:
    """P3O's joint clipping: E_old[w |r - r'| (S - S') / 2], S of the better response, S' of the worse one.

    w is the ratio of the better one over that of the worse one, or 0 above 1 + high; S is the sum of a response's psi.
    """

    def gradient(tree: Tree) -> Tensor:
        before = grow(earlier_policy(tree.task), tree.task)
        p, difference = before.probability(), tree.rewards[:, None] - tree.rewards
        moved = tree.probability() / p
        ratio = moved[:, None] / moved
        ratio = torch.where(difference > 0, ratio, 1 / ratio)
        # a leaf is the first of its pair as often as the second
        weights = (ratio * (ratio <= 1 + high) * difference) @ p
        return tree.score_gradient(p / tree.probability() * weights)

    return Formula("E_old[w d (S - S')/2]", gradient)


def clipped(low: float, high: float) -> Weight:
    """PPO's: the ratio, or 0 where it is beyond the range on the side that the advantage drives it to."""
    return lambda ratios, better: ratios * (ratios <= 1 + high if better else ratios >= 1 - low)


def capped(low: float, high: float) -> Weight:
    """CISPO's: the ratio, at most and at least an end of the range."""
    return lambda ratios, better: ratios.clamp(1 - low, 1 + high)


def of_means(low: float, high: float) -> Weight:
    """GSPO's: PPO's with the geometric mean of the tokens' ratios, over their number.

    The ratio of a token is never exactly 1 here, so that those other than 1 count the tokens.
    """

    def weight(ratios: Tensor, better: bool) -> Tensor:
        length = (ratios != 1).sum(1, keepdim=True)
        mean = ratios.log().sum(1, keepdim=True) / length
        return (clipped(low, high)(mean.exp(), better) / length).expand_as(ratios)

    return weight


def of_responses(low: float, high: float) -> Weight:
    """The same with the product of the ratios of all tokens."""
    return lambda ratios, better: clipped(low, high)(ratios.prod(1, keepdim=True), better).expand_as(ratios)
