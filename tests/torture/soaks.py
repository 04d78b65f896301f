"""Long runs: what a process holds after 500 iterations is what it held after 50."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from lightning import Callback, LightningModule, Trainer
from trials import Trial

EARLY, ITERATIONS = 50, 500
PROMISE = f"After {ITERATIONS} iterations memory, open files, threads and files of a run are as after {EARLY}"
MIB = 2**20
GROWTH = 1.05  # of memory; the rest is equal
ON_KEY_TOKEN = (
    *("--data.task", "KeyToken", "--data.task.length", "6", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--data.eval_prompts", "32"),
)
OFFLINE_DPO = ("--model", "OnlineDPO", "--model.sampling", "reference", "--checkpoint.dirpath", "dpo")
BEFORE: dict[str, tuple[str, ...]] = {  # what a run takes that another command makes
    "RTO": ("fit", *OFFLINE_DPO, *ON_KEY_TOKEN, "--trainer.max_epochs", "2"),
    "ABC": ("fit-reward", "--output", "scores", *ON_KEY_TOKEN[:4], "--prompts", "64", "--epochs", "1"),
}
SETTINGS: dict[str, tuple[str, ...]] = {
    **{name: () for name in ("REINFORCE", "RLOO", "ReMax", "GRPO", "PPO", "TRePO", "OnlineDPO", "Supervised")},
    "RTO": ("--model.dpo_checkpoint", "dpo/last.ckpt"),
    "ABC": ("--model.reward_model", "scores"),
}


class Levels(Callback):
    """Writes what the process holds after ``EARLY`` iterations and after each one later to ``levels.json``."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done in (EARLY, ITERATIONS):
            with open("levels.json", "a") as file:
                print(json.dumps(levels()), file=file)


def levels() -> dict[str, float]:
    """The process's own memory in MiB, its open files and threads, and the files below the working directory."""
    process = psutil.Process()
    return {
        "memory": process.memory_full_info().uss / MIB,
        "open files": process.num_fds(),
        "threads": process.num_threads(),
        "files": sum(path.is_file() for path in Path().rglob("*")),
    }


def soak(name: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        if name in BEFORE:
            _lit_rl(folder, *BEFORE[name])
        own = ("--trainer.max_epochs", str(ITERATIONS), "--trainer.callbacks", "soaks.Levels")
        _lit_rl(folder, "fit", "--model", name, *ON_KEY_TOKEN, *SETTINGS[name], *own)
        early, late = (json.loads(line) for line in (folder / "levels.json").read_text().splitlines())
        print(f"{name}: {early} -> {late}", file=sys.stderr)
        assert late["memory"] <= GROWTH * early["memory"], f"memory {early['memory']:.0f} -> {late['memory']:.0f} MiB"
        for what in ("open files", "threads", "files"):
            assert late[what] <= early[what], f"{what} {early[what]} -> {late[what]}"

    return run


def _lit_rl(folder: Path, *args: str) -> None:
    here = Path(__file__).resolve().parent
    paths = [str(here.parents[1]), str(here)]
    run = subprocess.run(
        [sys.executable, "-m", "lit_rl", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-500:]


AT_ONCE = 2
TRIALS = [Trial(PROMISE, name, soak(name)) for name in SETTINGS]
