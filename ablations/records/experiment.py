"""MLflow: a study is an experiment, an arm a parent run with the means over seeds, a seed a child run."""

import logging
import os
import socket
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.grid import Cell
from ablations.records.outcome import Failure

if TYPE_CHECKING:  # all of mlflow is slow to import
    from mlflow.entities import Run

ARM, SEED, KIND, HASH, COMMIT = (f"lit_rl.{key}" for key in ("arm", "seed", "kind", "config_hash", "commit"))
STUDY, SMOKE = "lit_rl.study", "lit_rl.smoke"
SWEEP = "lit_rl.sweep"  # host and process of the sweep
FAILURE, USAGE = "lit_rl.failure", "lit_rl.failure_is_usage"  # why a run failed, and if a setting is to blame
PARENT = "mlflow.parentRunId"
LONGEST = 500  # characters of a tag
CODE = ("lit_rl", "ablations", "data")


class Tracking:
    """The runs of one study's experiment, which is made, with its database, if there is none.

    Args:
        name: of the experiment.

    Raises:
        UsageError: the tracking server cannot be used.
    """

    def __init__(self, name: str) -> None:
        os.environ.pop("MLFLOW_RUN_ID", None)  # it would take the place of every run made here
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        from lit_rl.tracking.address import Client, experiment, tracking_uri

        self.name, self.uri = name, tracking_uri()
        self.experiment = experiment(name, self.uri)
        self.client = Client(self.uri)

    def runs(self, kind: str, digest: str | None = None, status: str | None = None) -> "list[Run]":
        """All runs of a kind, ``arm`` or ``cell``, or those of a configuration's hash or a status, the newest first."""
        experiments, query = [self.experiment], f"tags.`{KIND}` = '{kind}'"
        if digest is not None:
            query += f" and tags.`{HASH}` = '{digest}'"
        if status is not None:
            query += f" and attributes.status = '{status}'"
        page = self.client.search_runs(experiments, query)
        found = list(page)
        while page.token:
            page = self.client.search_runs(experiments, query, page_token=page.token)
            found += page
        return found

    def finished_cells(self) -> "dict[str, Run]":
        """The newest finished run of each configuration, by the configuration's hash."""
        return {run.data.tags[HASH]: run for run in reversed(self.runs("cell")) if run.info.status == "FINISHED"}

    def kill_stale(self, cells: Iterable[Cell]) -> None:
        """Marks as killed what this process, or one of this machine that has ended, left unfinished of these cells."""
        hashes = {cell.hash for cell in cells}
        for run in self.runs("cell", status="RUNNING"):  # few: asked before each cell, all runs would take seconds
            if run.data.tags[HASH] in hashes and not _alive(run.data.tags[SWEEP]):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def open_cell(self, cell: Cell, tags: dict[str, str]) -> str:
        """The id of a new run of the cell."""
        own = {KIND: "cell", ARM: cell.arm, SEED: str(cell.seed), STUDY: cell.study, HASH: cell.hash}
        run = self.client.create_run(self.experiment, run_name=str(cell), tags={**own, **tags})
        return run.info.run_id

    def is_running(self, run_id: str) -> bool:
        """Whether nobody has ended the run."""
        return self.client.get_run(run_id).info.status == "RUNNING"

    def fail(self, run_id: str, failure: Failure, status: str = "FAILED") -> None:
        """Ends a run as failed, or as killed, and says why in its tags."""
        self.client.set_tag(run_id, FAILURE, failure.reason[:LONGEST])
        self.client.set_tag(run_id, USAGE, str(failure.usage).lower())
        self.client.set_terminated(run_id, status)


def sweep() -> str:
    """Names this process among those of all machines."""
    return f"{socket.gethostname()} {os.getpid()}"


def _alive(name: str) -> bool:
    """Whether another process of that name may be at work: one of this machine that runs, or any of another machine."""
    host, pid = name.rsplit(" ", 1)
    if host != socket.gethostname():
        return True
    if int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def identity(run: "Run") -> tuple[str, int, str]:
    """Arm, seed and configuration hash of a cell's run."""
    tags = run.data.tags
    return tags[ARM], int(tags[SEED]), tags[HASH]


def commit() -> str:
    """The commit of the code that runs, with ``+dirty`` if its files differ from it.

    Outside its repository, as from a wheel, the package's version; ``unknown`` where it is not even installed.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).samefile(root):  # and not one that an environment lies in
            return git("rev-parse", "HEAD")[:12] + ("+dirty" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        return f"lit-rl {version('lit-rl')}"
    except PackageNotFoundError:
        return "unknown"
