"""A causal model's reading of rollouts: each prompt once, and behind it the responses to it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lit_rl.rollouts import Rollouts

# with a mask, at some lengths, the gradients of cuDNN's attention are NaN (pytorch/pytorch#196678); the others' are not
torch.backends.cuda.enable_cudnn_sdp(False)


def read(
    model: nn.Module, rollouts: Rollouts, parts: Callable[[Any], Sequence[Tensor]], head: bool = True, **options: Any
) -> list[Tensor]:
    """What the model says of each s_t: [N, T, ...], for each part of its output.

    Prompts, their last tokens left out, are read first; their keys and values, through which gradients flow back, are
    copied to their rows. A row's numbers depend on the width of the table it comes from, but (on a CPU, to the bit) not
    on the rows beside it.

    Args:
        parts: of the model's output, each [rows, tokens, ...].
        head: the model makes logits; none are computed that are not asked for.
        options: for the model.
    """
    length, width = rollouts.prompt_ids.shape[1], rollouts.response_ids.shape[1]
    inputs, cut = whole_inputs(rollouts), length - 1  # behind the cut, each row for itself
    kept = {"logits_to_keep": width + 1} if head else {}
    if cut and takes_cache(model):
        config: Any = model.config
        cache: Any = DynamicCache(config=config)
        group, number = rollouts.group.unique(return_inverse=True)
        rows = torch.arange(len(number), device=number.device)
        first = torch.full_like(group, len(rows)).scatter_reduce(0, number, rows, "amin")
        prompts = {name: x[first, :cut] for name, x in inputs.items()}
        model(**prompts, past_key_values=cache, use_cache=True, **({"logits_to_keep": 1} if head else {}))
        cache.batch_select_indices(number)
        inputs |= {name: inputs[name][:, cut:] for name in ("input_ids", "position_ids")}
        out = model(**inputs, past_key_values=cache, use_cache=True, **kept, **options)
    else:
        out = model(**inputs, use_cache=False, **kept, **options)
    return [x[:, -width - 1 : -1] for x in parts(out)]


def takes_cache(model: Any) -> bool:
    """Whether keys and values are all that the model remembers, and it remembers them while it is trained.

    A model that computes activations again does not, and one sharded by FSDP2 is read in one pass.
    """
    if isinstance(model, FSDPModule) or any(getattr(each, "gradient_checkpointing", False) for each in model.modules()):
        return False
    layers: Any = DynamicCache(config=model.config).layers
    return all(type(layer) is DynamicLayer for layer in layers)


def whole_inputs(rollouts: Rollouts) -> dict[str, Tensor]:
    """What a transformers model takes to read prompts and responses whole, each row for itself."""
    mask = torch.cat([rollouts.prompt_mask, rollouts.filled], 1).long()
    return {
        "input_ids": torch.cat([rollouts.prompt_ids, rollouts.response_ids], 1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
