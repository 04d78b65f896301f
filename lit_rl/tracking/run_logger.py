"""Lightning's MLflow logger, pointed at this project's runs, whose histories have each point once."""

import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_rl.tracking.address import FOLDER, Client, experiment, tracking_uri
from lit_rl.tracking.deferral import deferred
from lit_rl.tracking.patience import Away

AT_ONCE = 1000  # MLflow takes no more points in a call
OF_THE_MACHINE = ("time/", "memory/")  # other values when an iteration is done again
TABLES = "mlflow.loggedArtifacts"  # a tag, by which MLflow's UI knows which files are tables
Table = dict[str, list[Any]]  # columns


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, with this project's default for where runs go.

    A metric has one point a step, and a table the rows of an iteration once, also when a resumed run goes through
    iterations again that it had logged before it was killed.

    Args:
        experiment_name: made on first use.
        run_name: None takes the time. (MLflow would draw a name from Python's seeded generator: one name for all runs.)
        tags: of the run.
        run_id: go on with this run.

    Attributes:
        keeps: whether what can't be written, because MLflow is away, is kept for a checkpoint (see
            :func:`log_iteration`) instead of raising :class:`lit_rl.tracking.patience.Away` at once.
        away: what has not been raised because of that.
    """

    def __init__(
        self,
        experiment_name: str = "lit_rl",
        run_name: str | None = None,
        tags: dict[str, Any] | None = None,
        run_id: str | None = None,
    ) -> None:
        if run_name is None:
            run_name = time.strftime("%Y-%m-%d %H:%M:%S")
        uri = tracking_uri()
        experiment(experiment_name, uri)
        super().__init__(experiment_name=experiment_name, run_name=run_name, tracking_uri=uri, tags=tags, run_id=run_id)
        self._mlflow_client: Any = Client(uri)
        self.interrupted = False  # by a signal
        self.keeps = False
        self.away: Away | None = None
        self._goes_on = run_id is not None
        self._last: dict[str, int] = {}  # each metric's last step in this process
        self._before: dict[str, dict[int, float]] = {}  # values that the run had when this process began, by step
        self._tables: dict[str, Table] = {}
        self._points: list[list[Any]] = []  # not written yet: name, value, milliseconds, step
        self._rows: list[list[Any]] = []  # not written yet: file, rows
        self._warned = False

    @property
    def experiment(self) -> Any:
        """The client; the run is made at the first use."""
        with deferred():  # a run that is made is known, and can be ended
            return super().experiment

    @property
    def save_dir(self) -> str:
        """Checkpoints go here, under the experiment's and the run's id; MLflow itself has the artifacts."""
        return str(FOLDER / "checkpoints")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now, step = int(1000 * time.time()), step or 0
        for key, value in metrics.items():
            name = re.sub("[^a-zA-Z0-9_/. -]+", "", key)  # MLflow takes no other characters
            if self._last.get(name) != step:
                self._last[name] = step
                self._points.append([name, float(value), now, step])
        self._write()

    @rank_zero_only
    def log_table(self, rows: Table, file: str) -> None:
        """Adds rows, with a column ``iteration``, to the table in the artifact ``file``, which ends with ``.json``."""
        self._rows.append([file, rows])
        self._write()

    def unwritten(self) -> dict[str, Any]:
        """What MLflow has not got yet, for a checkpoint."""
        return {"run": self.run_id, "points": self._points, "rows": self._rows}

    @rank_zero_only
    def take_over(self, unwritten: dict[str, Any]) -> None:
        """Writes what an earlier process of this run could not; nothing, if it is of another run."""
        if unwritten["run"] == self.run_id:
            self._points[:0], self._rows[:0] = unwritten["points"], unwritten["rows"]
            self._write()
            self._before = {}  # these are there now, too

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        if not self._initialized or self.away is not None:
            return
        try:
            self._write()
            self.end(status)
        except Away:
            if status == "success":
                raise  # otherwise something else has ended the run, and is told

    def end(self, status: str) -> None:
        """Ends the run, of which all is written."""
        super().finalize("KILLED" if self.interrupted else status)

    def _write(self) -> None:
        if self.away is not None or not (self._points or self._rows):
            return
        try:
            self._write_points()
            self._write_rows()
        except Away as away:
            if not self.keeps:
                raise
            self.away = away

    def _write_points(self) -> None:
        from mlflow.entities import Metric

        client, run_id = self.experiment, self.run_id
        missing = [point for point in self._points if not self._has(*point)]
        for start in range(0, len(missing), AT_ONCE):
            # written a second time if only its answer was lost: MLflow drops a point that is the same in everything
            client.log_batch(run_id, [Metric(*point) for point in missing[start : start + AT_ONCE]])
        self._points = []

    def _has(self, name: str, value: float, _: int, step: int) -> bool:
        """Whether the run had a point of that step when this process began."""
        if not self._goes_on:
            return False
        if name not in self._before:
            history = self.experiment.get_metric_history(self.run_id, name)
            self._before[name] = {point.step: point.value for point in history}
        old = self._before[name].get(step)
        same = old is None or old == value or (old != old and value != value) or name.startswith(OF_THE_MACHINE)
        if not same and not self._warned:
            self._warned = True
            print(
                f"lit_rl: MLflow run {self.run_id} has other values of iterations that are done again ({name} in "
                f"{step}: {old:g}, now {value:g}); its histories keep the first",
                file=sys.stderr,
            )
        return old is not None

    def _write_rows(self) -> None:
        client, run_id = self.experiment, self.run_id
        for file in dict(self._rows):
            table = self._table(file)
            for _, rows in (each for each in self._rows if each[0] == file):
                new = [
                    i for i, iteration in enumerate(rows["iteration"]) if iteration not in table.get("iteration", [])
                ]
                for name, column in rows.items():
                    table.setdefault(name, []).extend(column[i] for i in new)
            data = [list(row) for row in zip(*table.values(), strict=True)]
            client.log_text(run_id, json.dumps({"columns": list(table), "data": data}), file)
            known = json.loads(client.get_run(run_id).data.tags.get(TABLES, "[]"))
            entry = {"path": file, "type": "table"}
            if entry not in known:
                client.set_tag(run_id, TABLES, json.dumps([*known, entry]))
        self._rows = []

    def _table(self, file: str) -> Table:
        """The table so far. It stays in memory, because MLflow starts threads whenever it reads one."""
        if file not in self._tables:
            table: Table = {}
            if self._goes_on and file in [each.path for each in self.experiment.list_artifacts(self.run_id)]:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(self.experiment.download_artifacts(self.run_id, file, folder))
                    saved = json.loads(path.read_text())
                columns = [list(column) for column in zip(*saved["data"], strict=True)]
                table = dict(zip(saved["columns"], columns, strict=True))
            self._tables[file] = table
        return self._tables[file]


def log_iteration(trainer: Trainer) -> Away | None:
    """Logs an iteration's metrics at its end, so that what a checkpoint has, MLflow has.

    Lightning logs them after the checkpoint is written, and :class:`RunLogger` does not take them twice.

    Returns:
        What to raise, on every rank, once a checkpoint has what could not be written.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
    if not loggers:
        return None
    metrics = convert_tensors_to_scalars(trainer._logger_connector.metrics["log"])
    step = int(metrics.pop("step"))
    for logger in loggers:
        logger.log_metrics(metrics, step)
    away = next((logger.away for logger in loggers if logger.away is not None), None)
    return trainer.strategy.broadcast(away)
