"""Checkpoints of the ends of iterations."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_rl.checkpoint_io import WholeCheckpointIO


class IterationCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also saves the last iteration when it is not one of every n.

    With ``every_n_epochs`` 0, and no other trigger, nothing is saved. Files are written and read by
    :class:`lit_rl.checkpoint_io.WholeCheckpointIO`, unless the Trainer has a plugin of its own for it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        remote = "://" in str(self.dirpath)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO and not remote:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not (self._every_n_epochs or self._every_n_train_steps or self._train_time_interval):
            return
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if last and self._last_global_step_saved != trainer.global_step and self.dirpath is not None:
            trainer.save_checkpoint(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the last iteration is saved, and what comes after it could not be resumed exactly."""
