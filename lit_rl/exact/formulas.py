"""Expectations in closed form: what an estimator's mean gradient is, if not the gradient of J."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.exact.tree import Tree


class Formula(NamedTuple):
    """A name to print, and the gradient [D] it stands for; None where there is none and a bias must show."""

    name: str
    gradient: Callable[[Tree], Tensor] | None


UNBIASED = Formula("unbiased", Tree.gradient)
NO_CLOSED_FORM = Formula("no closed form", None)


def scaled(name: str, factor: float) -> Formula:
    """factor * grad J."""
    return Formula(name, lambda tree: factor * tree.gradient())


def grpo_std(samples: int, divisor: float = 1.0) -> Formula:
    """GRPO with the standard deviation (n - 1) on a binary reward: another objective of the success rate p,

    sqrt((G-1)/G) E_k[sqrt(k/G (1 - k/G))] / (p (1-p)) grad p, k ~ Binomial(G, p); over T if losses are token means.
    """

    def gradient(tree: Tree) -> Tensor:
        p, g = float(tree.objective), samples
        chances = [math.comb(g, k) * p**k * (1 - p) ** (g - k) for k in range(g + 1)]
        deviation = sum(c * math.sqrt(k / g * (1 - k / g)) for k, c in enumerate(chances))
        return math.sqrt((g - 1) / g) * deviation / (p * (1 - p)) / divisor * tree.gradient()

    return Formula("w_G(p) grad p" + (" / T" if divisor != 1 else ""), gradient)


def by_position(name: str, factors: Sequence[float]) -> Formula:
    """sum_t factor_t g_t, with g_t = E[r psi_t]."""
    return Formula(name, lambda tree: torch.tensor(factors, dtype=torch.float64) @ tree.position_gradients())


def kl_penalized(coefficient: float) -> Formula:
    """The gradient of J - coefficient KL(pi || uniform) over whole responses."""

    def gradient(tree: Tree) -> Tensor:
        ratio = tree.along(tree.logprobs + math.log(tree.task.vocabulary), tree.ids, tree.lengths).sum(1)
        return tree.score_gradient(tree.rewards - coefficient * ratio)

    return Formula("grad (J - beta KL)", gradient)
