"""Expectations in closed form: what an estimator's mean gradient is, if it is not the gradient of J."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.exact.tree import Tree
from lit_rl.functional.chosen import packed, unpacked


class Formula(NamedTuple):
    """A name to print, and the gradient [D] that it stands for; None if no formula is known and a bias must show."""

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


def zero_variance(samples: int, alpha: float) -> Formula:
    """RL-ZVP on a binary reward: :func:`grpo_std`, and where all G responses are right or wrong, their entropies.

    alpha E[sum_t psi_t (p^(G-1) r H_t - (1-p)^(G-1) (1-r) (max_k H_k - H_t))] is added.
    """
    plain = grpo_std(samples).gradient
    assert plain is not None

    def gradient(tree: Tree) -> Tensor:
        p, right = tree.objective, tree.rewards[:, None]
        entropy = tree.along(tree.entropy, tree.ids, tree.lengths)
        solved = p ** (samples - 1) * right * entropy
        failed = (1 - p) ** (samples - 1) * (1 - right) * (entropy.amax(1, keepdim=True) - entropy)
        return plain(tree) + tree.score_gradient(alpha * (solved - failed))

    return Formula("w_G(p) grad p + entropies", gradient)


def whitened(samples: int, length: int) -> Formula:
    """As :func:`grpo_std`, with a deviation over the tokens of all responses, each of ``length`` tokens.

    It has G T - 1 in place of T (G - 1): sqrt((G T - 1) / (T (G - 1))) w_G(p) grad p.
    """
    scale = math.sqrt((samples * length - 1) / (length * (samples - 1)))
    plain = grpo_std(samples).gradient
    assert plain is not None
    return Formula("c w_G(p) grad p", lambda tree: scale * plain(tree))


def by_position(name: str, factors: Sequence[float]) -> Formula:
    """sum_t factor_t g_t, with g_t = E[r psi_t]."""
    return Formula(name, lambda tree: torch.tensor(factors, dtype=torch.float64) @ tree.position_gradients())


def kl_penalized(coefficient: float) -> Formula:
    """The gradient of J - coefficient KL(pi || uniform) over whole responses."""

    def gradient(tree: Tree) -> Tensor:
        ratio = tree.along(tree.logprobs + math.log(tree.task.vocabulary), tree.ids, tree.lengths)
        return tree.score_gradient(tree.rewards - coefficient * (ratio * tree.own).sum(1))

    return Formula("grad (J - beta KL)", gradient)


def decayed(decay: float, errors: Callable[[Tree], Tensor]) -> Formula:
    """GAE with lambda < 1 and a critic V + e: grad J + (1 - lambda) sum_l lambda^(l-1) E[psi_t e(s_{t+l})].

    Args:
        decay: lambda.
        errors: e(s_t) along every leaf [S, T]; those at the policy's tokens count.
    """

    def gradient(tree: Tree) -> Tensor:
        ahead = torch.zeros_like(e := packed(errors(tree) * tree.own, tree.own))
        for t in reversed(range(e.shape[1] - 1)):
            ahead[:, t] = e[:, t + 1] + decay * ahead[:, t + 1]
        return tree.gradient() + tree.score_gradient((1 - decay) * unpacked(ahead, tree.own))

    return Formula("grad J + error of V", gradient)


def length_reward(decay: float, offset: float) -> Formula:
    """GAE with lambda < 1 and the critic V + c: a token is charged c lambda^(T - t) for each one behind it that isn't.

    E[sum_t (r - c lambda^(T-t)) psi_t], T the response's length and t from 1.
    """

    def gradient(tree: Tree) -> Tensor:
        behind = tree.lengths[:, None] - 1 - torch.arange(tree.ids.shape[1])
        return tree.score_gradient(tree.rewards[:, None] - offset * decay ** behind.clamp(min=0).double())

    return Formula("grad J - c lambda^(T-t)", gradient)


def plug_in_baseline() -> Formula:
    """Two responses with the baseline b = (|S|^2 r + |S'|^2 r') / (|S|^2 + |S'|^2), own return included: E[(r - b) S].

    S is the score of a whole response. Where r depends on it, so does b.
    """

    def gradient(tree: Tree) -> Tensor:
        edges = tree.edges(tree.ids, tree.lengths)
        visits = torch.zeros(len(edges), tree.q.numel() + 1, dtype=torch.float64)
        visits = visits.scatter(1, edges.where(edges >= 0, tree.q.numel()), 1.0)[:, :-1]
        norms = ((visits @ tree.gram()) * visits).sum(1)  # |S|^2 of every leaf
        share = norms / (norms[:, None] + norms)
        return tree.score_gradient((share * (tree.rewards[:, None] - tree.rewards)) @ tree.probability())

    return Formula("E[(r - b) S], b with r", gradient)


def preference(samples: int, beta: float) -> Formula:
    """Online DPO at pi = pi_ref: (beta / 2) E[psi of the best - psi of the worst], of G independent responses.

    A response of reward r is the first best one with the chance sum_i P(r' < r)^(i-1) P(r' <= r)^(G-i), and the last
    worst one with sum_i P(r' > r)^(G-i) P(r' >= r)^(i-1); where all are equal, both cancel.
    """

    def gradient(tree: Tree) -> Tensor:
        rewards, p = tree.rewards, tree.probability()
        mine, other = rewards[:, None], rewards[None]
        below, least = (mine > other).double() @ p, (mine >= other).double() @ p
        above, most = (mine < other).double() @ p, (mine <= other).double() @ p
        differences = [
            below**i * least ** (samples - 1 - i) - above ** (samples - 1 - i) * most**i for i in range(samples)
        ]
        return tree.score_gradient(beta / 2 * torch.stack(differences).sum(0))

    return Formula("beta/2 (best - worst)", gradient)


def with_token_rewards(name: str, earned: Callable[[Tree], Tensor]) -> Formula:
    """The gradient of E[r + sum_t what the policy's token t earns], given for every leaf [S, T]."""
    return Formula(name, lambda tree: tree.score_gradient(tree.rewards + (earned(tree) * tree.own).sum(1)))


def redistributed(beta: float, attention: Callable[[Tree], Tensor]) -> Formula:
    """ABC's reward-to-go: grad J - beta E[psi_t r sum_{k<t} alpha_k].

    Args:
        beta: share of the reward that is spread.
        attention: alpha of every leaf [S, T].
    """

    def gradient(tree: Tree) -> Tensor:
        alpha = attention(tree)
        before = alpha.cumsum(1) - alpha
        return tree.gradient() - tree.score_gradient(beta * tree.rewards[:, None] * before)

    return Formula("grad J - beta E[r past alpha]", gradient)
