"""A step of decoding by ``torch.compile``: one program for all of a model's layers, all numbers of rows and slots."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lit_rl.errors import UsageError
from lit_rl.sampling.cache import RoomyLayer, RowCache


class LayerCache:
    """What a layer of a model takes for the cache: its own part of it, so that no layer's number is compiled in."""

    def __init__(self, part: RoomyLayer) -> None:
        self.part = part

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any) -> tuple[Tensor, Tensor]:
        return self.part.update(key_states, value_states)


@contextmanager
def compiled_layers(model: nn.Module) -> Iterator[None]:
    """Within, the model's layers take a step of one token a row, in slots that the cache holds, from the program.

    They are compiled when the first of them does, and run as they are in whatever else they do.

    Raises:
        UsageError: it is not transformers' layers, one for each part of the cache, that the model consists of.
    """
    sizes: Any = import_module("torch.fx.experimental._config")  # imports sympy
    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    config: Any = model.config
    if len(layers) != config.get_text_config(decoder=True).num_hidden_layers:
        raise UsageError("data.sampler.compile: the model is built of other layers than it knows; set it to false")
    for index, layer in enumerate(layers):
        layer.forward = partial(_forward, layer, index)
    try:
        with sizes.patch(use_duck_shape=False):  # those that happen to be equal may differ next time
            yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Module, index: int, *args: Any, **kwargs: Any) -> Any:
    own = {id(x): x.layers[index] for x in (*args, *kwargs.values()) if isinstance(x, RowCache)}
    if not any(isinstance(part, RoomyLayer) and part.holds for part in own.values()):
        return step(layer, *args, **kwargs)

    def in_part(x: Any) -> Any:
        return LayerCache(own[id(x)]) if id(x) in own else x

    from torch._dynamo import exc

    try:
        return program()(layer, *map(in_part, args), **{name: in_part(x) for name, x in kwargs.items()})
    except (exc.TorchDynamoException, exc.FailOnRecompileLimitHit) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"data.sampler.compile: a layer of this model can't be compiled ({reason}); set it to false"
        ) from None


def step(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The layer's own forward pass."""
    return type(layer).forward(layer, *args, **kwargs)


@cache
def program() -> Callable[..., Any]:
    return torch.compile(step, dynamic=True, fullgraph=True)
