"""The gradients of many groups from one backward pass.

The backward pass stops at the outputs of the model's layers. The gradient of a layer's parameters for one group is a
product of the group's inputs and the gradients of its outputs. It is computed for all groups at once.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from lit_rl.policy.reading import takes_tree

MOST_NUMBERS = 2**27  # of one parameter's gradients, and of logits


@dataclass
class Call:
    """A layer's input and output, rows first."""

    layer: nn.Module
    inputs: Tensor
    output: Tensor


def groups_at_once(model: nn.Module, logits: int) -> int:
    """How many groups at once take half a GiB for the gradients of the largest parameter, or for the logits."""
    return max(1, MOST_NUMBERS // max(logits, *(p.numel() for p in model.parameters())))


@contextmanager
def recorded(model: nn.Module, rows: int, groups: int) -> Iterator[list[Call]]:
    """Records the calls of the layers that have trainable parameters and contain no other layers.

    ``torch.func`` takes them apart if each has one tensor as input and one as output, with one row (or one prompt of a
    group) per entry. If any layer is different, as experts that mix the tokens of all rows, the list stays empty.
    """
    takes_tree(model)  # tries the model, where it has not been tried before
    calls: list[Call] = []
    strange = False

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal strange
        plain = (
            len(args) == 1
            and not kwargs
            and all(isinstance(x, Tensor) and len(x) in (rows, groups) for x in (*args, output))
        )
        if plain and output.requires_grad:
            calls.append(Call(layer, args[0].detach(), output))
        else:
            strange = True

    own = [each for each in model.modules() if any(p.requires_grad for p in each.parameters(recurse=False))]
    handles = [each.register_forward_hook(record, with_kwargs=True) for each in own]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        if strange or {id(each) for each in own} != {id(call.layer) for call in calls}:
            calls.clear()


def gradients_of_groups(loss: Tensor, calls: list[Call], groups: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each parameter with its gradient for every group [groups, *shape], for a loss that is a sum over groups.

    Args:
        calls: recorded with the rows of each group together, and as many rows for each.
    """
    received = torch.autograd.grad(loss, [call.output for call in calls], allow_unused=True)
    used = [(call, gradient) for call, gradient in zip(calls, received, strict=True) if gradient is not None]
    uses: dict[int, int] = defaultdict(int)
    for call, _ in used:
        for parameter in _trainable(call.layer).values():
            uses[id(parameter)] += 1
    sums: dict[int, Tensor] = {}  # of parameters that are used more than once, so far
    for call, gradient in used:
        parameters = _trainable(call.layer)
        parts = _of_groups(call, gradient, parameters, groups)
        for name, parameter in parameters.items():
            key = id(parameter)
            uses[key] -= 1
            part = sums.pop(key) + parts[name] if key in sums else parts[name]
            if uses[key]:
                sums[key] = part
            else:
                yield parameter, part


def squared_norms(gradients: Tensor) -> Tensor:
    """The sum of the squared norms of gradients [groups, *shape], a number in float64."""
    parts = torch.linalg.vector_norm(gradients, dim=-1)  # of millions of numbers at once it loses digits
    return parts.double().square().sum()


def _of_groups(call: Call, gradient: Tensor, parameters: dict[str, Tensor], groups: int) -> dict[str, Tensor]:
    inputs, gradient = (x.unflatten(0, (groups, -1)) for x in (call.inputs, gradient))
    if type(call.layer) is nn.Linear:  # torch.func computes the output again
        y = gradient.flatten(1, -2)
        parts = {"weight": torch.bmm(y.mT, inputs.flatten(1, -2).to(y)), "bias": y.sum(1)}
        return {name: parts[name] for name in parameters}
    if type(call.layer) is nn.Embedding:  # torch.func goes through its rows one group at a time
        table = call.layer.weight
        ids = inputs.flatten(1) + len(table) * torch.arange(groups, device=inputs.device)[:, None]
        sums = table.new_zeros(groups * len(table), table.shape[1])
        sums.index_add_(0, ids.flatten(), gradient.reshape(-1, table.shape[1]).to(sums))
        sums = sums.unflatten(0, (groups, -1))
        if call.layer.padding_idx is not None:
            sums[:, call.layer.padding_idx] = 0
        return {"weight": sums}

    def pulled(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return vjp(lambda p: functional_call(call.layer, p, (x,)), parameters)[1](y)[0]

    return vmap(pulled)(inputs, gradient)


def _trainable(layer: nn.Module) -> dict[str, Any]:
    return {name: p for name, p in layer.named_parameters(recurse=False) if p.requires_grad}
