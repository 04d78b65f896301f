"""What is said when ``fit`` has ended: where its checkpoint and its run are, and what comes next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger

from lit_rl.callbacks import IterationCheckpoint
from lit_rl.commands.options import DEFAULT_CLASSES
from lit_rl.tracking.database import sqlite_file
from lit_rl.tracking.patience import shown


def ending(trainer: Trainer, options: Sequence[str]) -> list[str]:
    """Three lines.

    Args:
        options: of the command ``fit`` that has ended.
    """
    kept = _checkpoint(trainer)
    runs = "; ".join(map(_run, trainer.loggers)) or "not logged: trainer.logger is false"
    if kept is None:
        why = "trainer.fast_dev_run is set" if trainer.fast_dev_run else "checkpoint.every_n_epochs is 0"  # type: ignore[attr-defined]
        kept, then = f"none: {why}", "fit once more with checkpoints, for the trained policy is in none"
    else:
        then = shlex.join(["python", "-m", "lit_rl", "test", *_of_test(options), "--ckpt_path", kept])
    return [f"checkpoint  {kept}", f"run         {runs}", f"next        {then}"]


def _checkpoint(trainer: Any) -> str | None:
    """The one of the last iteration; None if there is none."""
    ours = [each for each in trainer.checkpoint_callbacks if isinstance(each, IterationCheckpoint) and each.saves]
    # nothing is saved where a finished run was resumed: nothing was left to do
    return next((_from_here(path) for each in ours if (path := each.last_saved or trainer.ckpt_path)), None)


def _run(logger: Logger) -> str:
    if not isinstance(logger, MLFlowLogger):
        return str(_from_here(logger.log_dir)) if logger.log_dir else str(logger.name)
    uri, page = logger._tracking_uri, f"/#/experiments/{logger.experiment_id}/runs/{logger.run_id}"
    if uri.startswith(("http://", "https://")):
        return shown(uri.rstrip("/")) + page
    file = sqlite_file(uri)
    store = f"sqlite:///{_from_here(file)}" if file else shown(uri)
    return f"http://127.0.0.1:5000{page} when this runs: {shlex.join(['mlflow', 'ui', '--backend-store-uri', store])}"


def _from_here(path: Any) -> str:
    """A path, relative to the working directory if it is below it."""
    if "://" in str(path):
        return str(path)
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path)


def _of_test(options: Sequence[str]) -> list[str]:
    """The options without the checkpoint from which training went on, and without classes that are the default."""
    kept: list[str] = []
    defaults = {f"--{key}={name}" for key, name in DEFAULT_CLASSES.items()}
    for option, before in zip(options, ["", *options], strict=False):
        if not (option.startswith("--ckpt_path") or before == "--ckpt_path" or option in defaults):
            kept.append(option)
    return kept
