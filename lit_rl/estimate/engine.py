"""What vLLM's engine takes of a device that the policy trains on."""

from dataclasses import dataclass

import torch

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.sampling import VLLM, positions

GIB = 2**30


@dataclass(frozen=True)
class Engine:
    """Sizes are in bytes."""

    share: float  # of the memory, for its weights and caches
    memory: float  # of the device; where that is a CPU, of the machine
    besides: float  # on a CPU, its weights
    least: float  # that its share must have: for one row of the longest, and on a GPU for its weights
    stays: bool  # between calls

    @property
    def size(self) -> float:
        return self.share * self.memory + self.besides


def engine_of(
    sampler: VLLM, policy: CausalPolicy, slot: int, number: int, device: torch.device, memory: float
) -> Engine | None:
    """The engine of a sampler; None where it is not on the policy's device.

    Args:
        slot: numbers of a token's keys and values in all layers.
        number: bytes of a number that the trainer computes with.
        memory: bytes of which the engine takes a share.

    Raises:
        UsageError: its share can't hold its weights.
    """
    engine, gpu = sampler.engine, device.type == "cuda"
    if not engine.beside(device):
        return None
    if engine.dtype is not None:
        number = getattr(torch, engine.dtype).itemsize
    weights = number * sum(p.numel() for p in policy.parameters()) / engine.tensor_parallel_size
    if gpu and engine.memory_share * memory < weights:
        raise UsageError(
            f"data.sampler.memory_share is {engine.memory_share}: of {memory / GIB:.1f} GiB that is less than the "
            f"weights of vLLM's engine take, {weights / GIB:.1f}; raise it"
        )
    row = number * slot * (positions(policy, sampler) or 0) / engine.tensor_parallel_size
    besides, least = (0.0, weights + row) if gpu else (weights, row)
    return Engine(engine.memory_share, memory, besides, least, stays=not engine.sleeps(device))
