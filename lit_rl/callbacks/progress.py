"""Progress of the phases of an iteration on the terminal."""

import logging
import sys
import time
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from lit_rl.algorithms.schedules import share_spent
from lit_rl.callbacks.pace import Pace

SHOWN = ("train/reward", "val/accuracy")  # metrics
PEAK, MIB_A_GIB = "memory/peak", 2**10


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
    """Two lines: the run with elapsed time and time left, and the current phase (sampling, scoring, updates or
    evaluation) with generated tokens a second and the most memory so far.

    Shows nothing when the output is not a terminal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = Console(stderr=True).is_terminal
        self._progress: Progress | None = None
        self._lines: tuple[TaskID, TaskID]
        self._logs: list[tuple[Any, Any]] = []  # handlers, and where they print otherwise
        self._pace: Pace | None = None
        self._ended = 0  # iterations
        self._evaluated = self._evaluating_since = 0.0  # seconds of this iteration, and by the clock

    def phase(self, name: str, done: int, total: int) -> None:
        if self._progress is None:
            columns = (TextColumn("{task.description:>10}"), BarColumn(12), TextColumn("{task.fields[count]}"))
            self._progress = Progress(*columns, _Notes(), console=Console(stderr=True))
            add = self._progress.add_task
            self._lines = add("iteration", visible=False, count="", notes=[]), add(name, count="", notes=[])
            self._progress.start()
            self._logs = _log_above()
        if self._pace is not None and self.trainer.current_epoch > self._ended:
            self._iteration_ended(self.trainer, self._pace)
        self._progress.update(self._lines[1], description=name, completed=done, total=total, count=f"{done}/{total}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled:
            self._ended = trainer.current_epoch
            self._pace = Pace(time.perf_counter(), share_spent(trainer, trainer.lightning_module), _generated(trainer))
            self.phase("sampling", 0, 1)
            self._show(trainer, self._pace)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.enabled:
            self.phase("updates", batch_idx + 1, int(trainer.num_training_batches))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluating_since = time.perf_counter()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.enabled:
            self.phase("evaluation", batch_idx, int(sum(trainer.num_val_batches)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluated += time.perf_counter() - self._evaluating_since

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled and self._pace is not None and trainer.current_epoch > self._ended:
            self._iteration_ended(trainer, self._pace)

    def _iteration_ended(self, trainer: Trainer, pace: Pace) -> None:
        """Not called before all ranks have computed the iteration's metrics: this one would wait for the others."""
        pace.ended(
            time.perf_counter(), share_spent(trainer, trainer.lightning_module), _generated(trainer), self._evaluated
        )
        self._ended, self._evaluated = trainer.current_epoch, 0.0
        self._show(trainer, pace)

    def _show(self, trainer: Trainer, pace: Pace) -> None:
        assert self._progress is not None
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        reward, accuracy = ([f"{name} {known[name]:.3f}"] if name in known else [] for name in SHOWN)
        speed = [f"{pace.tokens_a_second:,.0f} tokens/s"] if pace.tokens_a_second is not None else []
        memory = [f"{known[PEAK] / MIB_A_GIB:.1f} GiB"] if PEAK in known else []
        share, run, phase = pace.share, *self._lines
        most = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        said = {"count": f"{self._ended}{most}", "notes": [lambda: _times(pace), *reward]}
        total = None if share is None else 1.0
        self._progress.update(run, total=total, completed=share or 0.0, visible=True, **said)  # type: ignore[arg-type]
        self._progress.update(phase, notes=[*speed, *memory, *accuracy])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            for handler, stream in self._logs:
                handler.setStream(stream)
            self._progress = None


class _Notes(ProgressColumn):
    """What is said of a line behind its bar; what changes with time is a function."""

    def render(self, task: Task) -> Text:
        return Text(", ".join(note() if callable(note) else note for note in task.fields["notes"]))


def _times(pace: Pace) -> str:
    now = time.perf_counter()
    elapsed, left = pace.elapsed(now), pace.left(now)
    said = str(timedelta(seconds=int(elapsed)))
    return said if left is None else f"{said}, {timedelta(seconds=round(left))} left"


def _log_above() -> list[tuple[Any, Any]]:
    """Has Lightning's messages printed above the lines, as all else on stderr is: its handlers keep the stream that
    there was when it was imported. Returns them with that stream."""
    handlers = [each for each in logging.getLogger("lightning.pytorch").handlers if type(each) is logging.StreamHandler]
    before = [(handler, handler.stream) for handler in handlers]
    for handler in handlers:
        handler.setStream(sys.stderr)
    return before


def _generated(trainer: Any) -> int:
    """Tokens, of all ranks."""
    return getattr(trainer.datamodule, "generated", 0)
