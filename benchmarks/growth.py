"""A GPU's memory over iterations: ``python -m benchmarks.growth GRPO|TRePO PRECISION [--compile] [--iterations N]``.

SmolLM2-135M, 32 prompts of the embedded task, 8 responses each of at most 48 tokens (TRePO: 4, cut every 8 tokens, one
continuation), one step an update. Prints, after each iteration, the MiB that PyTorch held and that tensors took at
the end of each so far, and when that was.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable

import torch
from lightning import Callback, LightningModule, Trainer

from benchmarks.measure import SMOLLM2, fit
from lit_rl.algorithms import GRPO, Algorithm, TRePO
from lit_rl.commands.cli import quiet
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
    """Prints what each iteration has left reserved and allocated, in MiB, and the seconds since the start."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.found: dict[str, list[float]] = {"reserved": [], "allocated": [], "seconds": []}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found["reserved"].append(torch.cuda.memory_reserved() / 2**20)
        self.found["allocated"].append(torch.cuda.memory_allocated() / 2**20)
        self.found["seconds"].append(time.perf_counter() - self.started)
        print(json.dumps(self.found), flush=True)


def grow(name: str, precision: str, compile: bool, iterations: int) -> None:
    """Trains, and prints what each iteration leaves in memory."""
    algorithm = MAKE[name](policy=CausalPolicy(str(SMOLLM2)), max_new_tokens=MOST, learning_rate=LEARNING_RATE)
    fit(
        algorithm,
        PROMPTS,
        ROWS,
        iterations,
        accumulate=PROMPTS * algorithm.plan.samples // ROWS,
        callbacks=(Levels(),),
        sampler=LocalSampler(compile=compile),
        accelerator="gpu",
        precision=precision,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("algorithm", choices=MAKE)
    parser.add_argument("precision", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--iterations", type=int, default=LATE)
    options = parser.parse_args()
    quiet()
    warnings.simplefilter("ignore")
    grow(options.algorithm, options.precision, options.compile, options.iterations)
