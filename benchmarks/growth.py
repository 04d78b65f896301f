"""A GPU's memory over iterations: ``python -m benchmarks.growth GRPO|TRePO PRECISION [--compile] [--iterations N]``.

SmolLM2-135M, 32 prompts of the embedded task, 8 responses each of at most 48 tokens (TRePO: 4, cut every 8 tokens, one
continuation), one step an update. Prints the MiB that PyTorch holds and that tensors take after each iteration, and
the seconds of each iteration but the first.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from benchmarks.measure import SMOLLM2, fit
from lit_rl.algorithms import GRPO, Algorithm, TRePO
from lit_rl.cli import quiet
from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy
from lit_rl.sampling import LocalSampler

PROMPTS, MOST, ROWS, LEARNING_RATE = 32, 48, 32, 1e-6
EARLY, LATE = 5, 60  # iterations
MAKE: dict[str, Callable[..., Algorithm]] = {
    "GRPO": lambda **kwargs: GRPO(samples=8, **kwargs),
    "TRePO": lambda **kwargs: TRePO(samples=4, cuts=Stride(8), continuations=1, **kwargs),
}


class Levels(Callback):
    """Keeps what each iteration leaves reserved and allocated, in MiB."""

    def __init__(self) -> None:
        self.reserved: list[float] = []
        self.allocated: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reserved.append(torch.cuda.memory_reserved() / 2**20)
        self.allocated.append(torch.cuda.memory_allocated() / 2**20)


def grown(name: str, precision: str, compile: bool, iterations: int) -> dict[str, Any]:
    """Trains, and tells what each iteration left in memory."""
    levels = Levels()
    algorithm = MAKE[name](policy=CausalPolicy(str(SMOLLM2)), max_new_tokens=MOST, learning_rate=LEARNING_RATE)
    rows = PROMPTS * algorithm.plan.samples
    seconds = fit(
        algorithm,
        PROMPTS,
        ROWS,
        iterations,
        accumulate=rows // ROWS,
        callbacks=(levels,),
        sampler=LocalSampler(compile=compile),
        accelerator="gpu",
        precision=precision,
    )
    return {"reserved": levels.reserved, "allocated": levels.allocated, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("algorithm", choices=MAKE)
    parser.add_argument("precision", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--iterations", type=int, default=LATE)
    options = parser.parse_args()
    quiet()
    warnings.simplefilter("ignore")
    print(json.dumps(grown(options.algorithm, options.precision, options.compile, options.iterations)))
