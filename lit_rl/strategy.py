"""FSDP2 as a strategy of Lightning's Trainer: ``strategy="fsdp2"``."""

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

from lit_rl.checkpoint_io import check_whole


class FSDP2(ModelParallelStrategy):
    """Shards policy, critic, reference, gradients and optimizer states over all processes, on GPUs or CPU.

    A checkpoint is one whole file, which any strategy loads with any number of processes. While a process samples or
    prepares an iteration, it has all parameters whole (:func:`lit_rl.policy.sharding.gathered`), those of frozen
    policies too. Measuring gradient noise takes three more vectors of the policy's size.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes  # Lightning's "auto" counts nodes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        check_whole(checkpoint_path)
        module: Any = self.lightning_module
        module.check_weights(
            torch.load(checkpoint_path, mmap=True, weights_only=True, map_location="cpu")["state_dict"]
        )
        return super().load_checkpoint(checkpoint_path, weights_only)


StrategyRegistry.register("fsdp2", FSDP2, "FSDP2 over all processes; its checkpoints are one file")
