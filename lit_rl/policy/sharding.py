"""FSDP2: parameters in shards, a part on each rank, and whole again while a rank works on its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Shards a module's parameters over the mesh: its own, or those of each child, a transformers model by blocks.

    A forward or backward pass of what is sharded is from then on one that all ranks make together.
    """
    own = any(True for _ in module.parameters(recurse=False))
    for child in [module] if own else module.children():
        done = any(isinstance(each, FSDPModule) for each in child.modules())  # or part of it, as a policy's reference
        if done or not any(True for _ in child.parameters()):
            continue
        blocks = set(getattr(child, "_no_split_modules", None) or ())
        for each in [each for each in child.modules() if type(each).__name__ in blocks]:
            fully_shard(each, mesh=mesh)
        fully_shard(child, mesh=mesh, reshard_after_forward=True)


@contextmanager
def gathered(*modules: nn.Module) -> Iterator[None]:
    """Within, what is sharded of the modules is whole: this rank computes with it, and waits for no other.

    Ranks may make different numbers of passes, as sampling to the ends of their own responses takes. Gradients of
    ``torch.autograd.grad`` are the rank's own. It costs the memory of whole parameters, and nothing where none is
    sharded. All ranks enter and leave together.
    """
    sharded = [each for module in modules for each in module.modules() if isinstance(each, FSDPModule)]
    sharded = [each for each in sharded if not _whole(each)]  # the others are an outer context's
    for each in sharded:
        _keep(each, True)
        each.unshard()
    try:
        yield
    finally:
        for each in sharded:
            _keep(each, False)
            each.reshard()


def _keep(module: FSDPModule, whole: bool) -> None:
    module.set_reshard_after_forward(not whole, recurse=False)
    module.set_reshard_after_backward(not whole, recurse=False)
    module.set_requires_gradient_sync(not whole, recurse=False)


def _whole(module: Any) -> bool:
    return not any(isinstance(parameter, DTensor) for parameter in module.parameters())
