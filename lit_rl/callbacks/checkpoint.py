"""Checkpoints of the ends of iterations."""

import signal
import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_rl.callbacks import slurm
from lit_rl.callbacks.checkpoint_settings import check_folder, check_monitor
from lit_rl.callbacks.interruption import Interrupted, Interruption
from lit_rl.checkpoint_io import WholeCheckpointIO
from lit_rl.tracking.run_logger import RunLogger, log_iteration

UNWRITTEN = "mlflow_unwritten"  # key of a checkpoint


class IterationCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also saves the last iteration when it is not one of every n.

    With ``every_n_epochs`` 0 and no other trigger, nothing is saved. Files are written and read by
    :class:`lit_rl.checkpoint_io.WholeCheckpointIO`, unless the Trainer has a plugin of its own for that.

    Metrics are written before the checkpoint: what a checkpoint contains, MLflow contains too. If MLflow is away, the
    iteration is saved together with what could not be written, and then :class:`lit_rl.tracking.patience.Away` is
    raised.
    """

    _told: Interrupted | None = None  # to end

    @property
    def last_saved(self) -> str:
        """The checkpoint that was written last; empty if none was."""
        return str(self._last_checkpoint_saved)

    @property
    def saves(self) -> bool:
        """Whether anything is saved; then the last iteration is."""
        return bool(self._every_n_epochs or self._every_n_train_steps or self._train_time_interval)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        remote = "://" in str(self.dirpath)
        if stage == "fit" and self.saves:
            check_monitor(self, trainer, pl_module)
            if self.dirpath is not None and not remote:
                check_folder(str(self.dirpath), "checkpoint.dirpath")
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO and not remote:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.keeps = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        away = log_iteration(trainer)
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        interruption = _interruption(trainer)
        told = interruption.received(trainer) if interruption and not last else None
        super().on_train_epoch_end(trainer, pl_module)
        if self.saves and (last or told or away) and self._last_global_step_saved != trainer.global_step:
            self._save_checkpoint(trainer, f"{self.dirpath}/{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        if told:
            self._told = told
            trainer.should_stop, trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = True, None, None
        elif away:
            away.kept = self.last_saved or None
            raise away

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if _interruption(trainer) and trainer.is_global_zero:
            slurm.remember(filepath)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if isinstance(trainer.logger, RunLogger):
            checkpoint[UNWRITTEN] = trainer.logger.unwritten()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if isinstance(trainer.logger, RunLogger) and UNWRITTEN in checkpoint:
            trainer.logger.take_over(checkpoint[UNWRITTEN])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves nothing: the last iteration is saved, and what comes after it could not be resumed exactly.

        Raises:
            Interrupted: a signal has ended the run.
        """
        if self._told is None:
            if _interruption(trainer) and trainer.is_global_zero:
                slurm.forget()
            return
        if trainer.is_global_zero:
            name, kept = signal.Signals(self._told.signum).name, self.last_saved
            said = f"saved; go on with --ckpt_path {kept}" if kept else "not saved: checkpoint.every_n_epochs is 0"
            print(f"lit_rl: {name} ended it behind iteration {trainer.current_epoch}, {said}", file=sys.stderr)
        raise self._told


def _interruption(trainer: Any) -> Interruption | None:
    return next((each for each in trainer.callbacks if isinstance(each, Interruption)), None)
