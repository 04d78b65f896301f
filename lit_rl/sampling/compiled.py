"""A step of decoding by ``torch.compile``: one program for all of a model's layers, all numbers of rows and slots."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.fx.experimental._config as shapes
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
    """Within, the model's layers run from the program, which the first of them has compiled.

    Raises:
        UsageError: it is not transformers' layers, one for each part of the cache, that the model consists of.
    """
    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    config: Any = model.config
    if len(layers) != config.get_text_config(decoder=True).num_hidden_layers:
        raise UsageError("data.sampler.compile: the model is built of other layers than it knows; set it to false")
    for index, layer in enumerate(layers):
        layer.forward = partial(_forward, layer, index)
    try:
        # sizes that happen to be equal may differ next time
        with shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Module, index: int, *args: Any, **kwargs: Any) -> Any:
    from torch._dynamo import exc  # slow to import

    def own(x: Any) -> Any:
        return LayerCache(x.layers[index]) if isinstance(x, RowCache) else x

    try:
        return program()(layer, *map(own, args), **{name: own(x) for name, x in kwargs.items()})
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
