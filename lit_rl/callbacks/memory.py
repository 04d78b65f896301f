"""What a run keeps in memory."""

import resource
import sys
from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_rl.callbacks.reward import RewardCallback

MIB = 2**20


class Memory(Callback):
    """Logs MiB of each process, the largest of all ranks, at the end of every iteration:

    - ``memory/policy``, ``memory/critic``: parameters and buffers that are trained or go with them,
    - ``memory/frozen``: models that are only used, the reference and reward models among them,
    - ``memory/optimizer``: the optimizer's state,
    - ``memory/peak``: the most so far; of what PyTorch has allocated on a GPU, elsewhere of the whole process.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        algorithm: Any = pl_module
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        scorers = [each.reward_model for each in callbacks if isinstance(each, RewardCallback)]
        frozen = [*algorithm.frozen, *(model for model in scorers if model is not None)]
        own = {id(x) for x in _tensors(algorithm)}  # a reference may be the policy without its adapters
        sizes = {"policy": _bytes(_tensors(algorithm.policy))}
        sizes["frozen"] = _bytes(x for module in frozen for x in _tensors(module) if id(x) not in own)
        if isinstance(critic := getattr(algorithm, "critic", None), nn.Module):
            sizes["critic"] = _bytes(_tensors(critic))
        states = (x for optimizer in trainer.optimizers for state in optimizer.state.values() for x in state.values())
        sizes["optimizer"] = _bytes(x for x in states if isinstance(x, Tensor))
        sizes["peak"] = _peak(pl_module.device)
        values = {f"memory/{name}": torch.tensor(size / MIB, device=pl_module.device) for name, size in sizes.items()}
        pl_module.log_dict(
            values,
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=True,
            reduce_fx="max",
        )


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensors: Iterable[Tensor]) -> int:
    parts = (x.to_local() if isinstance(x, DTensor) else x for x in tensors)
    return sum(x.numel() * x.element_size() for x in parts)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024
