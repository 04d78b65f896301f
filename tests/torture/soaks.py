"""Long runs: what a process holds after 500 iterations is what it held after 50."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
from every_algorithm import SETTINGS, commands
from lightning import Callback, LightningModule, Trainer
from trials import Trial

AT_ONCE = 2
EARLY, ITERATIONS = 50, 500
PROMISE = f"After {ITERATIONS} iterations memory, open files, threads and files of a run are as after {EARLY}"
GROWTH = 1.05  # of memory; the rest is equal
HERE = Path(__file__).resolve().parent
PATHS = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE)))


class Levels(Callback):
    """Writes what the process holds after ``EARLY`` and after ``ITERATIONS`` iterations to ``levels.json``."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 in (EARLY, ITERATIONS):
            with open("levels.json", "a") as file:
                print(json.dumps(levels()), file=file)


def levels() -> dict[str, float]:
    """The process's own memory in MiB, its open files and threads, and the files below the working directory."""
    process = psutil.Process()
    return {
        "memory": process.memory_full_info().uss / 2**20,
        "open files": process.num_fds(),
        "threads": process.num_threads(),
        "files": sum(path.is_file() for path in Path().rglob("*")),
    }


def soak(name: str, folder: Path) -> None:
    for args in commands(name, ITERATIONS, "--trainer.callbacks=soaks.Levels"):
        run = subprocess.run(
            [sys.executable, "-m", "lit_rl", *args],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-500:]
    early, late = (json.loads(line) for line in (folder / "levels.json").read_text().splitlines())
    print(f"{name}: {early} -> {late}", file=sys.stderr)
    assert late["memory"] <= GROWTH * early["memory"], f"memory {early['memory']:.0f} -> {late['memory']:.0f} MiB"
    for what in ("open files", "threads", "files"):
        assert late[what] <= early[what], f"{what} {early[what]} -> {late[what]}"


TRIALS = [Trial(PROMISE, name, partial(soak, name)) for name in SETTINGS]
