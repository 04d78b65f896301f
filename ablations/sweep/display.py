"""A sweep on the terminal."""

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ablations.records.outcome import Failure
from ablations.sweep.status import Status

SECONDS_APART = 30  # what cells say at about the same time is said once: MLflow is away for all of them


class SweepDisplay:
    """One bar for the sweep and one line a running cell; without a terminal, one plain line a finished cell."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal
        )
        self._sweep = self._progress.add_task("cells", total=total, note="")
        self._cells: dict[str, TaskID] = {}
        self._said = -math.inf
        self._total, self._done, self._started = total, 0, time.perf_counter()

    def __enter__(self) -> "SweepDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, status: Status) -> None:
        if status.line:
            now = time.monotonic()
            if now - self._said > SECONDS_APART:
                self.note(status.line)
            self._said = now
            return
        if status.cell not in self._cells:
            self._cells[status.cell] = self._progress.add_task(f"  {status.cell}", total=status.iterations, note="")
        reward = "" if status.reward is None else f"  train/reward {status.reward:.3f}"
        self._progress.update(self._cells[status.cell], completed=status.iteration, note=f"{status.phase}{reward}")

    def note(self, line: str) -> None:
        """A line for what is neither progress nor an end."""
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def finish(self, cell: str, failure: Failure | None) -> None:
        self._done += 1
        if cell in self._cells:
            self._progress.remove_task(self._cells.pop(cell))
        self._progress.advance(self._sweep)
        if self._progress.disable:
            outcome = "finished" if failure is None else f"failed: {failure.reason}"
            seconds = time.perf_counter() - self._started
            print(f"[{self._done}/{self._total}] {cell}: {outcome} ({seconds:.0f} s)", file=sys.stderr, flush=True)
