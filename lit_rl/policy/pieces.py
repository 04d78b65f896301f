"""Log-probabilities of tokens, and the like, without the logits of a whole micro-batch in memory."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint

MOST_LOGITS = 3 * 2**23  # at once: 96 MiB in float32
OfLogits = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # of logits [n, V] and ids [n]: numbers [n]
_plain: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # models whose head does all there is


def tokens_at_once(vocabulary: int) -> int:
    """How many tokens have their logits computed together."""
    return max(1, MOST_LOGITS // vocabulary)


@torch.no_grad()
def plain_head(model: Any) -> nn.Linear | None:
    """The layer that makes a causal model's logits of its last hidden states.

    None where more is done to them, and for a model sharded by FSDP2, whose layers are whole in its own forward alone.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if type(head) is not nn.Linear or isinstance(model, FSDPModule):
        return None
    if model not in _plain:
        ids = torch.arange(2, device=head.weight.device)[None]
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        _plain[model] = torch.equal(head(states), model(input_ids=ids, use_cache=False).logits)
    return head if _plain[model] else None


def in_pieces(
    head: nn.Linear, states: Tensor, ids: Tensor, temperature: float, dtype: torch.dtype, of: OfLogits
) -> tuple[Tensor, ...]:
    """``of`` a head's logits, some tokens after others; a backward pass computes them again.

    Args:
        states: [n, H] hidden states.
        dtype: of the logits.
    """

    def piece(some: Tensor, chosen: Tensor) -> tuple[Tensor, ...]:
        return of(head(some).to(dtype) / temperature, chosen)

    count = -(-len(ids) // tokens_at_once(head.weight.shape[0]))
    tokens = -(-len(ids) // count)  # pieces of one size take the same memory again
    again = torch.is_grad_enabled()
    pairs = zip(states.split(tokens), ids.split(tokens), strict=True)
    parts = [checkpoint(piece, *pair, use_reentrant=False) if again else piece(*pair) for pair in pairs]
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


def of_logits(logits: Tensor, ids: Tensor, entropy: bool) -> tuple[Tensor, Tensor]:
    """log pi of the tokens [n] under logits [n, V], and the entropies [n] in nats, through which no gradient flows, 0
    if not asked for."""
    logprobs = logits.gather(-1, ids[..., None]).squeeze(-1) - logits.logsumexp(-1)
    if not entropy:
        return logprobs, torch.zeros_like(logprobs)
    parts = logits.detach().split(max(1, MOST_LOGITS // 8 // logits.shape[-1]))  # to spare memory
    return logprobs, torch.cat([torch.special.entr(part.softmax(-1)).sum(-1) for part in parts])


@torch.no_grad()
def score_norms(logits: Tensor, ids: Tensor) -> tuple[Tensor]:
    """|1[a] - pi|^2 of the tokens [n] under logits [n, V]: the squared norm of the gradient of log pi(a) by the
    logits."""
    rows, norms = max(1, MOST_LOGITS // 8 // logits.shape[-1]), []  # to spare memory
    for some, chosen in zip(logits.split(rows), ids.split(rows), strict=True):
        gaps = some.softmax(-1).scatter_add_(-1, chosen[:, None], some.new_full((len(some), 1), -1.0))
        norms.append(gaps.square_().sum(-1))
    return (torch.cat(norms),)
