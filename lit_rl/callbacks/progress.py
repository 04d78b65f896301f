"""Progress of the phases of an iteration on the terminal."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class PhaseProgress(ProgressBar):
    """A progress bar that also hears of sampling and scoring, which Lightning's own bars know nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def phase(self, name: str, done: int, total: int) -> None:
        """``done`` of ``total`` units of the phase are done."""
        raise NotImplementedError


def report(trainer: Trainer, phase: str, done: int, total: int) -> None:
    """Tells the trainer's progress bar, if it is one of ours."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, PhaseProgress) and bar.enabled:
        bar.phase(phase, done, total)


class IterationProgress(PhaseProgress):
    """One line for the iterations and one for the current phase: sampling, scoring, updates or evaluation.

    Shows nothing when the output is not a terminal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = Console(stderr=True).is_terminal
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def phase(self, name: str, done: int, total: int) -> None:
        if self._progress is None:
            columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._progress.start()
            self._tasks = {key: self._progress.add_task(key, total=None, note="") for key in ("iteration", "phase")}
        self._progress.update(self._tasks["phase"], description=name, completed=done, total=total)

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled:
            self.phase("sampling", 0, 1)
            self._iteration(trainer, "")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.enabled:
            self.phase("updates", batch_idx + 1, int(trainer.num_training_batches))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.enabled:
            self.phase("evaluation", batch_idx, int(sum(trainer.num_val_batches)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled:
            shown = ("train/reward", "val/accuracy")
            seen = {name: trainer.callback_metrics[name] for name in shown if name in trainer.callback_metrics}
            self._iteration(trainer, "  ".join(f"{name} {float(value):.3f}" for name, value in seen.items()), 1)

    def _iteration(self, trainer: Trainer, note: str, finished: int = 0) -> None:
        assert self._progress is not None
        self._progress.update(
            self._tasks["iteration"], completed=trainer.current_epoch + finished, total=trainer.max_epochs, note=note
        )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()
