"""From a chosen token to the next one: rows in which an environment speaks between the policy's tokens.

An estimator knows the policy's tokens alone, numbered 0, 1, ... along each row. ``packed`` moves them to the front of
their row and ``unpacked`` moves numbers back to where the tokens stand.
"""

import torch
from torch import Tensor


def packed(x: Tensor, mask: Tensor) -> Tensor:
    """What belongs to the tokens in the mask, at the front of each row in their order: [N, T] -> [N, T].

    Behind it stands what belongs to the other tokens.

    Args:
        x: [N, T].
        mask: [N, T] bool.
    """
    return x.gather(1, (~mask).to(torch.uint8).argsort(dim=1, stable=True))


def unpacked(x: Tensor, mask: Tensor) -> Tensor:
    """The inverse of :func:`packed` on the tokens in the mask; 0 at the others."""
    return torch.where(mask, x.gather(1, before(mask).clamp(max=x.shape[1] - 1)), 0)


def before(mask: Tensor) -> Tensor:
    """The number of tokens in the mask before each token: [N, T]; at one of the mask it is its own number."""
    return mask.cumsum(1) - mask.long()


def turn_ends(mask: Tensor) -> Tensor:
    """True at the last token of each turn: of tokens in the mask without a gap between them, [N, T]."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~following
