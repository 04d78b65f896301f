"""The gradient noise of TRePO and RLOO in closed form, and what the resolved-variance profile predicts of it.

TRePO with fixed cuts, the fill ``segment_td`` and the siblings' mean at the root; RLOO is the case without further
cuts. A response's segments are k = 0, 1, ..., with S_k the sum of the scores psi_t over segment k, V_k = V(s) at its
start, and V = r behind the last one. With independent continuations the noise of a group of G responses is

    tr Cov = (1/G) (E|sum_k (V_{k+1} - V_k) S_k|^2 - |grad J|^2                      what the segments decide
                    + sum_{k >= 1} E[Var(r | s_k) |S_{k-1} - S_k|^2] / K             values from K continuations
                    + (Var(r) E|S_0|^2 + |E[r S_0]|^2) / (G - 1))                    the siblings at the root

The cross terms are zero: a value's error has mean 0 given the response, and the siblings are independent of it.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor
from torch.nn.functional import one_hot

from lit_rl.exact.tree import Tree


def trepo_noise(tree: Tree, cuts: Sequence[int], continuations: int, samples: int) -> float:
    """tr Cov of one prompt's gradient, exactly.

    Args:
        tree: of responses of one length.
        cuts: positions, ascending, the first 0; RLOO has no other.
        continuations: K, at each cut but the first.
        samples: G, at least 2.
    """
    p, gram, rewards = tree.probability(), tree.gram(), tree.rewards
    scores = _segments(tree, cuts)
    spreads, values = zip(*(_moments(tree, cut) for cut in cuts), strict=True)
    ends = [*values[1:], rewards]
    decided = sum((end - value)[:, None] * s for end, value, s in zip(ends, values, scores, strict=True))
    total = p @ _square(decided, gram) - tree.gradient().square().sum()
    for spread, (before, after) in zip(spreads[1:], pairwise(scores), strict=True):
        total += p @ (spread * _square(before - after, gram)) / continuations
    root = spreads[0][0] * (p @ _square(scores[0], gram)) + _square((p * rewards) @ scores[0], gram)
    return float(total + root / (samples - 1)) / samples


def predicted_noise(tree: Tree, cuts: Sequence[int], continuations: int, samples: int) -> float:
    """tr Cov of one prompt's gradient as the profile F_t (:meth:`Tree.resolved`) predicts it from RLOO's.

    Of a segment it takes the noise R_k = E[(r - J)^2 |S_k|^2] that the response's own reward gives it, the noise Q_k =
    Var(r) E|S_k|^2 of an independent one, and its part g_k of the gradient. F says how much of the noise is left:

        (1/G) (sum_k (R_k (F_{k+1} - F_k + (1 - F_{k+1}) / n_{k+1}) + Q_k (1 - F_k) / n_k) - |g|^2 + |g_0|^2 / (G - 1)),

    with n_0 = G - 1, n_k = K, and F = 1 behind the last token. It is exact without further cuts, and where all is
    decided before the second one. Otherwise it neglects that what is left may depend on the prefix.

    Args:
        tree, cuts, continuations, samples: as of :func:`trepo_noise`.
    """
    p, gram, centred = tree.probability(), tree.gram(), tree.rewards - tree.objective
    resolved = [*tree.resolved()[list(cuts)].tolist(), 1.0]
    copies = [samples - 1, *[continuations] * (len(cuts) - 1), 1]
    error = [(1 - f) / n for f, n in zip(resolved, copies, strict=True)]
    scores = _segments(tree, cuts)
    total = _square((p * centred) @ scores[0], gram) / (samples - 1) - tree.gradient().square().sum()
    for k, squares in enumerate(_square(s, gram) for s in scores):
        own, independent = p @ (centred.square() * squares), (p @ centred.square()) * (p @ squares)
        total += own * (resolved[k + 1] - resolved[k] + error[k + 1]) + independent * error[k]
    return float(total) / samples


def _segments(tree: Tree, cuts: Sequence[int]) -> list[Tensor]:
    """S_k of every leaf, as the edges whose scores it adds up: [S, E] each."""
    edges = tree.edges(tree.ids, tree.lengths)
    steps = one_hot(edges, tree.q.numel()).to(tree.rewards)
    return [steps[:, here:there].sum(1) for here, there in pairwise([*cuts, edges.shape[1]])]


def _moments(tree: Tree, cut: int) -> tuple[Tensor, Tensor]:
    """Var(r | s) and V(s) of the prefix of ``cut`` tokens of every leaf: [S] each."""
    along = partial(tree.along, ids=tree.ids, lengths=tree.lengths)
    values = along(tree.v)
    spread = tree.state_means((tree.rewards[:, None] - values).square())
    return along(spread)[:, cut], values[:, cut]


def _square(scores: Tensor, gram: Tensor) -> Tensor:
    """|sum_e scores_e psi_e|^2: [..., E] -> [...]."""
    return ((scores @ gram) * scores).sum(-1)
