"""Runs the cells of a study, each once, whoever runs the study beside."""

import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ablations import grid
from ablations.grid import Cell
from ablations.records.experiment import COMMIT, FAILURE, PARENT, SMOKE, SWEEP, USAGE, Tracking, commit, identity, sweep
from ablations.records.outcome import Failure, Outcome
from ablations.study import Study
from ablations.sweep import claims
from ablations.sweep.arm_runs import close_arms, open_arms
from ablations.sweep.display import SweepDisplay
from ablations.sweep.launchers import Launcher, Work, work_off
from ablations.sweep.stages import prepare
from ablations.sweep.status import Status
from lit_rl.tracking.patience import Away


def run(
    study: Study,
    seeds: Sequence[int] | None,
    launcher: Launcher,
    smoke: bool,
    done: Collection[str] = (),
    curves: bool = True,
) -> int:
    """Runs the cells that MLflow does not have yet; returns the exit code.

    A failing cell does not stop the others, nor does one whose process dies. Runners of one study share its cells. The
    code is 0 if all cells are finished, 2 if all failures are mistakes in settings, otherwise 1.

    Args:
        done: hashes of cells that need not be run, for what they came to is known without MLflow.
        curves: whether arms get the means of their cells' curves, or of their last values alone.

    Raises:
        UsageError: no cell can run, because the tracking server cannot be used or a stage failed.
    """
    cells = grid.cells(study, seeds, smoke)
    launcher.warm_up()  # while this process imports
    tracking = Tracking(study.label(smoke))
    finished = {*tracking.finished_cells(), *done}
    pending = [cell for cell in cells if cell.hash not in finished]
    if len(pending) < len(cells):
        print(f"{len(cells) - len(pending)} of {len(cells)} cells already finished", file=sys.stderr)
    tasks: list[_CellTask] = []
    away = False
    try:
        if pending:
            arms = open_arms(tracking, pending, smoke)
            prepare({each for cell in pending for each in cell.preparations}, launcher)
            tags = {COMMIT: commit(), SMOKE: str(smoke).lower(), SWEEP: sweep()}
            with SweepDisplay(len(pending)) as display:
                tasks = [_CellTask(cell, tracking, {**tags, PARENT: arms[cell.arm]}, display) for cell in pending]
                work_off(tasks, launcher, display.show)
    except Away:  # nobody there to be told: the next start tidies up
        away = True
        raise
    finally:
        if not away:
            tracking.kill_stale(pending)
            close_arms(tracking, cells, smoke, lambda run: grid.find(study, *identity(run), smoke) is not None, curves)
    failures = [(task.cell, task.failure) for task in tasks if task.failure is not None]
    for cell, failure in failures:
        print(f"failed: {cell}: {failure.reason}", file=sys.stderr)
    return 0 if not failures else 2 if all(failure.usage for _, failure in failures) else 1


class _CellTask:
    """A cell to be run, with the tags of its run."""

    def __init__(self, cell: Cell, tracking: Tracking, tags: dict[str, str], display: SweepDisplay) -> None:
        self.cell = cell
        self.failure: Failure | None = None
        self.claim = claims.folder(tracking.uri, tracking.name) / cell.hash
        self._tracking, self._tags, self._display = tracking, tags, display
        self._since, self._run_id = 1000 * time.time(), ""

    def settled(self) -> Outcome | None:
        """How it ended, here or in another runner, since this one has begun."""
        runs = self._tracking.runs("cell", self.cell.hash)
        if any(run.info.status == "FINISHED" for run in runs):
            return Outcome(None)
        for run in runs:
            if run.info.status == "FAILED" and run.info.end_time >= self._since and FAILURE in run.data.tags:
                return Outcome(Failure(run.data.tags[FAILURE], run.data.tags[USAGE] == "true"))
        return None

    def start(self) -> Work:
        self._tracking.kill_stale([self.cell])
        self._run_id = self._tracking.open_cell(self.cell, self._tags)
        args = self.cell, self._tracking.name, self._tracking.uri, self._run_id
        return Work(_run_cell, args, needs=tuple(Path(each.folder) for each in self.cell.preparations))

    def died(self, failure: Failure) -> None:
        self._tracking.fail(self._run_id, failure, "KILLED")
        self._run_id = ""
        self._display.note(f"{self.cell}: {failure.reason}; it is tried once more")

    def ended(self, outcome: Outcome) -> None:
        self.failure = outcome.failure
        self._display.finish(str(self.cell), outcome.failure)
        if self.failure is not None and self._run_id and self._tracking.is_running(self._run_id):  # it could not say so
            self._tracking.fail(self._run_id, self.failure)


def _run_cell(tell: Callable[[Status], None], *args: Any) -> Failure | None:
    from ablations.sweep.cell import run_cell  # slow to import

    return run_cell(tell, *args)
