"""What of the settings of checkpoints can be known before the first iteration."""

import difflib
import os
import sys
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_rl.algorithms.training import ACCURACIES
from lit_rl.errors import UsageError

# metrics by the part in front of the slash; None where their names depend on settings
METRICS: dict[str, tuple[str, ...] | None] = {
    "train": ("reward", "task_score"),
    "val": ACCURACIES,
    "response": ("length", "truncated"),
    "group": ("zero_advantage",),
    "policy": ("entropy", "kl", "clip_fraction"),
    "loss": ("policy", "kl", "value"),
    "critic": ("explained_variance", "bias"),
    "pretraining": ("explained_variance", "bias"),
    "pairs": ("tied",),
    "progress": ("optimizer_steps", "learning_rate"),
    "prompts": ("too_long", "hinted"),
    "tokens": ("generated", "continued", "prefilled"),
    "time": ("sample", "score", "update"),
    **dict.fromkeys(("reward", "memory", "gradient", "diagnostic", "credit", "value_accuracy")),
}
OURS = ("lit_rl", "lightning", "ablations")  # packages whose metrics these are
HIGHER_IS_BETTER = ("train/reward", "train/task_score", *(f"val/{name}" for name in ACCURACIES))


def check_folder(path: str, setting: str) -> None:
    """That a folder is there and can be written to, or can be made. Nothing is made.

    Raises:
        UsageError: it can't.
    """
    folder = Path(path).expanduser().absolute()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        raise UsageError(f"{setting}: {path} can't be a folder, for {there} is a file; give another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{setting}: {there} can't be written to; give another folder")


def is_known(name: str) -> bool:
    """Whether a metric may be logged, by what comes with ``lit_rl``."""
    group, _, rest = name.partition("/")
    members = METRICS.get(group, ())
    return bool(rest) and (members is None or rest in members)


def check_monitor(checkpoint: ModelCheckpoint, trainer: Trainer, algorithm: LightningModule) -> None:
    """That somebody logs the metric that checkpoints are chosen by; a line where the lowest counts as the best.

    Raises:
        UsageError: nobody does, for algorithm and callbacks are known ones.
    """
    name = checkpoint.monitor
    if name is None:
        return
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    others = [each for each in (algorithm, *callbacks) if type(each).__module__.split(".")[0] not in OURS]
    if not is_known(name) and not others:
        names = [f"{group}/{rest}" for group, members in METRICS.items() for rest in members or ()]
        near = difflib.get_close_matches(name, names, 1)
        raise UsageError(
            f"checkpoint.monitor is {name}, which nothing logs{f' (did you mean {near[0]}?)' if near else ''}; give a "
            "metric that MLflow shows, like val/accuracy, or null"
        )
    if name in HIGHER_IS_BETTER and checkpoint.mode == "min" and trainer.is_global_zero:
        print(
            f"lit_rl: checkpoint.mode is min, so that the lowest {name} counts as the best; set checkpoint.mode max to "
            "keep the highest",
            file=sys.stderr,
        )
