"""An arm's run in MLflow: the parent of its cells' runs, with the means over them. Runners of one study share it."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ablations.grid import Cell
from ablations.records.experiment import ARM, KIND, PARENT, SMOKE, STUDY, Tracking
from ablations.sweep.claims import alone, folder

if TYPE_CHECKING:
    from mlflow.entities import Run

CLAIM = "arms"


def open_arms(tracking: Tracking, cells: Sequence[Cell], smoke: bool) -> dict[str, str]:
    """The ids of the parents for the arms of these cells: those that are open, otherwise new ones."""
    with alone(folder(tracking.uri, tracking.name) / CLAIM):
        arms, children = _parents(tracking), tracking.runs("cell")
        first = {cell.arm: cell for cell in reversed(cells)}
        return {arm: _open(tracking, cell, smoke, arms.get(arm, []), children) for arm, cell in first.items()}


def close_arms(
    tracking: Tracking, cells: Sequence[Cell], smoke: bool, current: "Callable[[Run], bool]", curves: bool = True
) -> None:
    """Logs an arm's means, and marks it as finished if all of its cells are, otherwise as failed; unless that has been
    done and no cell finished since.

    Args:
        current: whether a finished run is one of the study as it is now, whatever its seed.
        curves: of whole curves, which takes a call to MLflow for each curve of each cell; otherwise of last values.
    """
    with alone(folder(tracking.uri, tracking.name) / CLAIM):
        arms, children = _parents(tracking), tracking.runs("cell")
        finished = tracking.finished_cells()
        for arm, cell in {cell.arm: cell for cell in cells}.items():
            done = [run for run in finished.values() if run.data.tags[ARM] == arm and current(run)]
            closed = [run for run in arms.get(arm, [])[:1] if run.info.status != "RUNNING"]
            if closed and all(run.info.end_time <= closed[0].info.end_time for run in done):
                continue
            run_id = _open(tracking, cell, smoke, arms.get(arm, []), children)
            tracking.client.set_terminated(run_id, "FAILED")  # an open one has no points yet: that is relied on
            _log_means(tracking, run_id, done, curves)
            complete = all(each.hash in finished for each in cells if each.arm == arm)
            tracking.client.set_terminated(run_id, "FINISHED" if complete else "FAILED")


def _parents(tracking: Tracking) -> "dict[str, list[Run]]":
    """The runs of each arm, the newest first."""
    found: dict[str, list[Run]] = {}
    for run in tracking.runs("arm"):
        found.setdefault(run.data.tags[ARM], []).append(run)
    return found


def _open(tracking: Tracking, cell: Cell, smoke: bool, earlier: "Sequence[Run]", children: "Sequence[Run]") -> str:
    """The id of the arm's open parent, which takes over all children. One that is closed has curves that are means over
    the seeds it had, and MLflow can't take back a point: it is replaced."""
    client = tracking.client
    if earlier and earlier[0].info.status == "RUNNING":
        run_id, *rest = [run.info.run_id for run in earlier]
    else:
        tags = {KIND: "arm", ARM: cell.arm, STUDY: cell.study, SMOKE: str(smoke).lower()}
        run_id = client.create_run(tracking.experiment, run_name=cell.arm, tags=tags).info.run_id
        rest = [run.info.run_id for run in earlier]
    for child in children:
        if child.data.tags[ARM] == cell.arm and child.data.tags.get(PARENT) != run_id:
            client.set_tag(child.info.run_id, PARENT, run_id)
    for each in rest:
        client.delete_run(each)
    return run_id


def _log_means(tracking: Tracking, run_id: str, children: "Sequence[Run]", curves: bool) -> None:
    """The means over the children of each metric at each step, or of its last value: the UI then compares arms."""
    from mlflow.entities import Metric

    values: dict[tuple[str, int], list[float]] = {}
    for child in children:
        for name, last in child.data.metrics.items():
            if not curves:
                values.setdefault((name, 0), []).append(last)
                continue
            for point in tracking.client.get_metric_history(child.info.run_id, name):
                values.setdefault((name, point.step), []).append(point.value)
    now = int(1000 * time.time())
    # an infinite value comes back from MLflow as the largest float, and two of them are too large for fmean
    means = [Metric(name, sum(all_) / len(all_), now, step) for (name, step), all_ in values.items()]
    for start in range(0, len(means), 1000):  # MLflow takes no more at once
        tracking.client.log_batch(run_id, means[start : start + 1000])
