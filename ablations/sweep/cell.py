"""One cell, in a worker process: build, validate, fit, test. Imported by workers alone, for it is slow to import."""

import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule, Trainer
from transformers.utils.logging import disable_progress_bar

from ablations.config import merge
from ablations.grid import Cell
from ablations.records.experiment import Tracking
from ablations.records.outcome import Failure
from ablations.sweep.stages import seconds
from ablations.sweep.status import Status
from lit_rl.callbacks.progress import PhaseProgress
from lit_rl.commands.cli import CLI, RUN_LOGGER
from lit_rl.errors import usage_error
from lit_rl.tracking import patience
from lit_rl.tracking.run_logger import RunLogger

SECONDS_BETWEEN_REPORTS = 0.2


class CellLogger(RunLogger):
    """A logger that leaves its run open: validation, training and test share it, and only the last one ends it."""

    def end(self, status: str) -> None:
        pass


class ToldProgress(PhaseProgress):
    """Tells the runner a :class:`Status`, at most every ``SECONDS_BETWEEN_REPORTS``."""

    def __init__(self, cell: str, tell: Callable[[Status], None]) -> None:
        super().__init__()
        self._cell, self._tell = cell, tell
        self._reward: float | None = None
        self._reported = 0.0

    def phase(self, name: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self._reported >= SECONDS_BETWEEN_REPORTS:
            self._reported = now
            iteration, iterations = self.trainer.current_epoch, self.trainer.max_epochs or 0
            self._tell(Status(self._cell, name, min(iteration + 1, iterations), iterations, self._reward))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.phase("updates", batch_idx + 1, int(trainer.num_training_batches))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.phase("evaluation", batch_idx, int(sum(trainer.num_val_batches)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "train/reward" in trainer.callback_metrics:
            self._reward = float(trainer.callback_metrics["train/reward"])


def run_cell(tell: Callable[[Status], None], cell: Cell, experiment: str, uri: str, run_id: str) -> Failure | None:
    """Runs a cell and ends its MLflow run, as FINISHED only after everything is done.

    A run that was closed meanwhile, by a runner that took this for dead, stays as it is.
    """
    be_silent()
    patience.tell = lambda line: tell(Status(str(cell), "", 0, 0, None, line))
    os.environ["MLFLOW_TRACKING_URI"] = uri
    torch.set_num_threads(1)
    tracking = Tracking(experiment)
    try:
        _run(cell, CellLogger(experiment, run_id=run_id), tell)
    except (Exception, SystemExit) as error:
        usage = usage_error(error)
        failure = Failure.of(error) if usage is None else Failure(" ".join(str(usage).split()), True)
        if isinstance(usage, patience.Away):  # nobody there to be told
            return failure
        tracking.client.log_text(run_id, traceback.format_exc(), "error.txt")
        if tracking.is_running(run_id):
            tracking.fail(run_id, failure)
        return failure
    if tracking.is_running(run_id):
        tracking.client.set_terminated(run_id, "FINISHED")
    return None


def be_silent() -> None:
    """The terminal is the runner's: warnings go to MLflow as metrics, errors as artifacts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os.environ.update(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false", TOKENIZERS_PARALLELISM="false")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    disable_progress_bar()


def _run(cell: Cell, logger: CellLogger, tell: Callable[[Status], None]) -> None:
    # what the cell's config.yaml says when it is repeated by hand: an ordinary run beside the study's
    ordinary = {
        "class_path": RUN_LOGGER,
        "init_args": {"experiment_name": logger._experiment_name},
    }
    execution = {"enable_progress_bar": False, "logger": ordinary}
    cli = CLI(args=merge(cell.config, {"trainer": execution}), run=False)
    trainer: Any = cli.trainer
    model, data = cli.model, cli.datamodule
    trainer.logger = logger
    trainer.callbacks.insert(0, ToldProgress(str(cell), tell))  # ModelCheckpoint has to stay last
    if not cell.frozen:
        trainer.validate(model, data, verbose=False)  # curves begin before the first iteration
    if cell.trained:
        started = time.perf_counter()
        trainer.fit(model, data)
        spent = {"time/fit": time.perf_counter() - started}
        if cell.preparations:
            spent["time/stages"] = seconds(cell.preparations)
        logger.log_metrics(spent, step=trainer.current_epoch)
        if not cell.frozen and trainer.current_epoch % trainer.check_val_every_n_epoch:
            trainer.validate(model, data, verbose=False)  # and end behind the last
    if not cell.frozen:
        trainer.test(model, data, verbose=False)
