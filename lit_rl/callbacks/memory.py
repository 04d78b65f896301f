"""What a run keeps in memory, and which settings to lower when there is not enough."""

import resource
import sys
from collections.abc import Iterable
from typing import Any

import psutil
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_rl.callbacks.reward import RewardCallback
from lit_rl.errors import UsageError
from lit_rl.policy.pieces import tokens_at_once
from lit_rl.sampling import VLLM, LocalSampler
from lit_rl.sampling.cache import bytes_a_slot

MIB, GIB = 2**20, 2**30


class Memory(Callback):
    """Logs the memory of each process in MiB, the largest of all processes, at the end of every iteration.

    - ``memory/policy``, ``memory/critic``: parameters that are trained, and buffers,
    - ``memory/frozen``: models that are only used, such as the reference and reward models,
    - ``memory/optimizer``: the optimizer's state,
    - ``memory/allocated``, ``memory/reserved``: on a GPU, what tensors take now, and what PyTorch holds for them,
    - ``memory/resident``: the memory of the whole process now, without the GPU's,
    - ``memory/peak``: the most so far; on a GPU of what PyTorch has allocated, elsewhere of the whole process.

    A run that runs out of memory says what takes it and which settings lower it.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = pl_module.device
        found = {**sizes(trainer, pl_module), "resident": psutil.Process().memory_info().rss, "peak": _peak(device)}
        if device.type == "cuda":
            found["allocated"] = torch.cuda.memory_allocated(device)
            found["reserved"] = torch.cuda.memory_reserved(device)
        values = {f"memory/{name}": torch.tensor(size / MIB, device=device) for name, size in found.items()}
        pl_module.log_dict(
            values,
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=True,
            reduce_fx="max",
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if _wants_memory(exception):
            exception.__cause__ = UsageError(_explanation(trainer, pl_module))


def _wants_memory(exception: BaseException) -> bool:
    on_cpu = isinstance(exception, RuntimeError) and "can't allocate memory" in str(exception)
    return on_cpu or isinstance(exception, torch.OutOfMemoryError | MemoryError)


def _explanation(trainer: Any, algorithm: Any) -> str:
    """What takes memory, in GiB, and what lowers it, on one line."""
    data, device = trainer.datamodule, algorithm.device
    parts = [f"{name} {size / GIB:.2f}" for name, size in sizes(trainer, algorithm).items()]
    rows, tokens = data.rows_per_microbatch, data.tokens_per_microbatch
    by = "rows" if tokens is None else "tokens"
    lower = [f"data.{by}_per_microbatch (with more trainer.accumulate_grad_batches)"]
    where, whole = "the machine's memory", psutil.virtual_memory().total
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        where = f"the GPU's {whole / GIB:.1f} GiB, of which {free / GIB:.1f} are free"
    config = algorithm.policy.model.config
    length, vocabulary = algorithm.plan.max_new_tokens, algorithm.policy.vocabulary
    if isinstance(data.sampler, LocalSampler):
        batch = data.sampler.batch_rows
        prompt = data.rollouts.prompt_ids.shape[1] if hasattr(data, "rollouts") else 0
        kind = "bfloat16" if "bf16" in str(trainer.precision) else "float16" if "16" in str(trainer.precision) else None
        dtype = getattr(torch, kind) if kind is not None else next(algorithm.policy.parameters()).dtype
        slots = (prompt + length) * 5 // 4  # the room that a cache has
        copies = 2 if algorithm.plan.continuations else 1
        caches = copies * batch * slots * bytes_a_slot(config, dtype.itemsize)
        parts.append(f"caches of {batch} rows (data.sampler.batch_rows) up to {caches / GIB:.2f}")
        parts.append(f"their logits {batch * vocabulary * 4 / GIB:.2f}")
        lower.insert(0, "data.sampler.batch_rows")
    if isinstance(data.sampler, VLLM) and (engine := data.sampler.engine).beside(device):
        when = " while it samples" if engine.sleeps(device) else ""
        parts.append(f"vLLM's engine (data.sampler.memory_share){when} {engine.memory_share * whole / GIB:.2f}")
        lower.insert(0, "data.sampler.memory_share")
    logits = min(tokens or rows * length, tokens_at_once(vocabulary)) * vocabulary * 4
    parts.append(f"logits of a micro-batch of {tokens or rows} {by} (data.{by}_per_microbatch) {logits / GIB:.2f}")
    return (
        f"out of memory: {where}, can't hold what this run needs (GiB: {', '.join(parts)}; activations besides); lower "
        f"{', '.join(lower)} or model.max_new_tokens, or set model.policy.gradient_checkpointing true; the last "
        "checkpoint is whole"
    )


def sizes(trainer: Any, pl_module: LightningModule) -> dict[str, int]:
    """Bytes of the models and of the optimizer's state; ``trainer`` has its callbacks and optimizers."""
    algorithm: Any = pl_module
    callbacks: list[Any] = trainer.callbacks
    scorers = [each.reward_model for each in callbacks if isinstance(each, RewardCallback)]
    frozen = [*algorithm.frozen, *(model for model in scorers if model is not None)]
    own = {id(x) for x in _tensors(algorithm)}  # a reference may be the policy without its adapters
    found = {"policy": _bytes(_tensors(algorithm.policy))}
    found["frozen"] = _bytes(x for module in frozen for x in _tensors(module) if id(x) not in own)
    if isinstance(critic := getattr(algorithm, "critic", None), nn.Module):
        found["critic"] = _bytes(_tensors(critic))
    states = (x for optimizer in trainer.optimizers for state in optimizer.state.values() for x in state.values())
    found["optimizer"] = _bytes(x for x in states if isinstance(x, Tensor))
    return found


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
