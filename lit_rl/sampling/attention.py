"""Attention of one token a row, as decoding takes it, by batched matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lit_rl_one_token"


@contextmanager
def one_token_attention(model: Any) -> Iterator[None]:
    """Within, a transformers model on a CPU that computes attention with PyTorch's kernel decodes with ours.

    The kernel works through rows and heads one by one, ours takes them all at once, which shows in decoding a small
    model. Other models, and other devices, stay as they are.
    """
    plain = [each for each in model.modules() if isinstance(each, PreTrainedModel)][:1]  # not a table, for one
    ours = [each for each in plain if each.config._attn_implementation == "sdpa" and each.device.type == "cpu"]
    for each in ours:
        each.set_attn_implementation(NAME)
    try:
        yield
    finally:
        for each in ours:
            each.set_attn_implementation("sdpa")


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
        attention_mask: [B, 1, 1, slots] bool.

    Returns:
        [B, 1, heads, size], and no weights.
    """
    if query.shape[2] > 1 or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    grouped = query.unflatten(1, (key.shape[1], -1)).squeeze(3)  # [B, key heads, heads of each, size]
    scores = torch.matmul(grouped * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if attention_mask is not None:
        scores += torch.zeros_like(attention_mask, dtype=scores.dtype).masked_fill_(~attention_mask, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return torch.matmul(weights, value).flatten(1, 2)[:, None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
