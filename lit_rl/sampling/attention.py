"""Attention of one token a row, as decoding takes it, by batched matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lit_rl.policy import tree

NAME = "lit_rl_one_token"


@contextmanager
def one_token_attention(model: Any) -> Iterator[None]:
    """Within, a transformers model that computes attention with PyTorch's kernel decodes with ours.

    On a CPU the kernel works through rows and heads one by one, ours takes them all at once, which shows in decoding a
    small model; on a GPU it copies keys and values that heads share, once for each. Other models stay as they are.
    """
    plain = [each for each in model.modules() if isinstance(each, PreTrainedModel)][:1]  # not a table, for one
    names = ((each, each.config._attn_implementation) for each in plain)
    ours = {each: name for each, name in names if name in ("sdpa", tree.NAME)}
    for each in ours:
        each.set_attn_implementation(NAME)
    try:
        yield
    finally:
        for each, name in ours.items():
            each.set_attn_implementation(name)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(q k' scaling) v for one query a row; more of them go to PyTorch's kernel.

    Args:
        query: [B, heads, 1, size].
        key, value: [B, key heads, slots, size], each for heads / key heads heads.
        attention_mask: [B, 1, 1, slots], bool or an :func:`attention_bias`.

    Returns:
        [B, 1, heads, size], and no weights.
    """
    if query.shape[2] > 1 or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    grouped = query.unflatten(1, (key.shape[1], -1)).squeeze(3)  # [B, key heads, heads of each, size]
    scores = torch.matmul(grouped * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if attention_mask is not None:
        boolean = attention_mask.dtype == torch.bool
        scores += attention_bias(attention_mask, scores.dtype) if boolean else attention_mask
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return torch.matmul(weights, value).flatten(1, 2)[:, None], None


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where the mask is true, minus infinity where it is not: what scores of that ``dtype`` are raised by."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
