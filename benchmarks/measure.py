"""What a benchmark is made of."""

import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lit_rl.algorithms import Algorithm
from lit_rl.callbacks import RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.policy import CausalPolicy
from lit_rl.policy.causal import DATA
from lit_rl.sampling import Sampler
from lit_rl.tasks import GSM8KStyle
from lit_rl.tasks.base import Example

SAMPLES = 4
ROOT = Path(__file__).resolve().parents[1]
SMOLLM2 = DATA / "smollm2"


@dataclass(frozen=True)
class Line:
    """One comparison. ``ratio`` is above 1 where ours is better, and ``target`` the ratio that is asked for; 0
    where none is."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    target: float


def rate(name: str, target: float, ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> Line:
    """Two rates in tokens a second, each the median of some rounds, taken in turns after one to warm up.

    The ratio is the median of the rounds', so that a machine that is slower for a while slows both.
    """
    ours(), peer()
    pairs = [(ours(), peer()) for _ in range(rounds)]
    left, right = (median(values) for values in zip(*pairs, strict=True))
    return Line(name, left, right, "tokens/s", median(a / b for a, b in pairs), target)


def limit(name: str, unit: str, ours: float, most: float) -> Line:
    """A time or a size against the most that it may be."""
    return Line(name, ours, most, unit, most / ours, 1.0)


def seconds(work: Callable[[], object]) -> float:
    started = now()
    work()
    return now() - started


def now() -> float:
    """Seconds, once a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def problems(policy: CausalPolicy, count: int) -> tuple[list[Example], list[list[int]]]:
    """The first training problems of the embedded task, and their prompts' ids."""
    examples = list(GSM8KStyle().prompts("train").select(range(count)))
    return examples, [policy.encode_prompt(example["prompt"]) for example in examples]


def process(
    module: str, *args: str, cwd: str | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What ``python -m module`` prints last, as JSON; it may run in another folder, and with variables of its own."""
    env = {
        **os.environ,
        **(variables or {}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    run = subprocess.run([sys.executable, "-m", module, *args], capture_output=True, text=True, cwd=cwd, env=env)
    if run.returncode:
        raise RuntimeError(f"python -m {module} {' '.join(args)}: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout.splitlines()[-1])


def peak() -> float:
    """MiB that this process has had in memory at most."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux is the parent's, where that had more
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def fetched() -> bool:
    """Whether SmolLM2 is there; ``make smollm2`` fetches it."""
    return (SMOLLM2 / "model.safetensors").exists()


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def device() -> str:
    """What the numbers hold for."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}{gpu}"


def fit(
    algorithm: Algorithm,
    prompts: int,
    rows: int,
    iterations: int,
    accumulate: int = 1,
    callbacks: tuple[Any, ...] = (),
    sampler: Sampler | None = None,
    tokens: int | None = None,
    **trainer: Any,
) -> list[float]:
    """Trains for some iterations on the embedded task, on a CPU unless ``trainer`` says otherwise; the seconds of each
    but the first."""
    ends: list[float] = []

    class Clock(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            ends.append(time.perf_counter())

    settings: dict[str, Any] = {
        **TRAINER_DEFAULTS,
        "max_epochs": iterations,
        "accumulate_grad_batches": accumulate,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
        **trainer,
    }
    micro = {"rows_per_microbatch": rows, "tokens_per_microbatch": tokens}
    data = RolloutDataModule(GSM8KStyle(), sampler, prompts_per_iteration=prompts, **micro, seed=0)  # type: ignore
    Trainer(**settings, callbacks=[RewardCallback(), *callbacks, Clock()]).fit(algorithm, datamodule=data)
    return [after - before for before, after in itertools.pairwise(ends)]
