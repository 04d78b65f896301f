"""MLflow's tables in an SQLite file, made once and whole."""

import fcntl
import os
from pathlib import Path


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite URI; None for anything else."""
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


def make_tables(uri: str) -> None:
    """Makes MLflow's tables if ``uri`` is an SQLite file that is not there.

    Two processes make them once; a process that is killed leaves no half of them under the database's name.

    Raises:
        OSError: the folder can't be written.
    """
    path = sqlite_file(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():  # another process was faster
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        part = path.with_name(f".{path.name}.part")
        for left in path.parent.glob(f"{part.name}*"):  # by a process that was killed
            left.unlink()
        store = SqlAlchemyStore(f"sqlite:///{part}", str(path.parent / "artifacts"))
        store._dispose_engine()
        os.replace(part, path)
