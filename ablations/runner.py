"""Runs the cells of a study in a pool of worker processes, each cell once."""

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Any

from ablations.display import SweepDisplay
from ablations.stages import prepare
from ablations.status import Failure
from ablations.study import Cell, Study
from ablations.tracking import COMMIT, PARENT, SMOKE, SWEEP, Tracking, commit, identity, sweep

# what a cell takes long to import; a worker that is forked from it starts in a moment
SHARED = ["ablations.cell", "mlflow.store.tracking.sqlalchemy_store"]


def run(study: Study, seeds: Sequence[int] | None, jobs: int, smoke: bool) -> int:
    """Runs the cells that MLflow does not have yet, ``jobs`` at a time; returns the exit code.

    A failing cell does not stop the others. The code is 0 if all cells are finished, 2 if all failures are mistakes in
    settings, otherwise 1.

    Raises:
        UsageError: no cell can run, because the tracking server cannot be used or a stage failed.
    """
    cells = study.cells(seeds, smoke)
    multiprocessing.get_context("forkserver").set_forkserver_preload(SHARED)
    forkserver.ensure_running()  # imports while this process does
    tracking = Tracking(study.label(smoke))
    finished = tracking.finished_cells()
    pending = [cell for cell in cells if cell.hash not in finished]
    if len(pending) < len(cells):
        print(f"{len(cells) - len(pending)} of {len(cells)} cells already finished", file=sys.stderr)
    if not pending:
        return 0
    tracking.kill_stale(pending)
    arms = tracking.open_arms(pending, smoke)
    tags = {COMMIT: commit(), SMOKE: str(smoke).lower(), SWEEP: sweep()}
    try:
        prepare({each for cell in pending for each in cell.preparations}, jobs)
        failures = _sweep(pending, tracking, {arm: {**tags, PARENT: run_id} for arm, run_id in arms.items()}, jobs)
    finally:
        tracking.kill_stale(pending)
        tracking.close_arms(cells, arms, lambda run: study.find(*identity(run), smoke) is not None)
    for cell, failure in failures:
        print(f"failed: {cell}: {failure.reason}", file=sys.stderr)
    return 0 if not failures else 2 if all(failure.usage for _, failure in failures) else 1


def _sweep(
    cells: Sequence[Cell], tracking: Tracking, tags: dict[str, dict[str, str]], jobs: int
) -> list[tuple[Cell, Failure]]:
    """Runs the cells, with the tags of their arms; returns those that failed, and why."""
    context = multiprocessing.get_context("forkserver")
    queue = context.SimpleQueue()
    # a process of its own for each cell: its memory's peak is its own, too
    options: dict[str, Any] = {
        "initializer": _start_worker,
        "initargs": (queue, tracking.uri),
        "max_tasks_per_child": 1,
    }
    pool = ProcessPoolExecutor(min(jobs, len(cells)), context, **options)
    failures = []
    try:
        futures = {pool.submit(_run_cell, cell, tracking.name, tags[cell.arm]): cell for cell in cells}
        remaining = set(futures)
        with SweepDisplay(len(cells)) as display:
            while remaining:
                done, remaining = wait(remaining, timeout=0.1, return_when=FIRST_COMPLETED)
                while not queue.empty():
                    display.show(queue.get())
                for future in done:
                    try:
                        failure = future.result()
                    except BrokenProcessPool:
                        failure = Failure("a worker process died, perhaps for want of memory; run again", False)
                    except Exception as error:  # the tracking server went away, for one
                        failure = Failure(f"{type(error).__name__}: {' '.join(str(error).split())}", False)
                    if failure is not None:
                        failures.append((futures[future], failure))
                    display.finish(str(futures[future]), failure)
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()  # Lightning would outlive a termination, and go on to the next cell
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def _start_worker(*args: Any) -> None:
    from ablations.cell import start_worker

    start_worker(*args)


def _run_cell(*args: Any) -> Failure | None:
    from ablations.cell import run_cell

    return run_cell(*args)
