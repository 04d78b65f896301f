"""MLflow: where runs go. Imports nothing heavy, so that commands which only look at runs answer at once."""

import logging
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_rl.errors import UsageError
from lit_rl.tracking.database import make_tables, sqlite_file
from lit_rl.tracking.patience import ONE_TRY, Away, patiently, reason, shown

if TYPE_CHECKING:  # all of mlflow is slow to import
    from mlflow.entities import Run

FOLDER = Path("mlruns")
START = "lit_rl.start"  # a tag: which call made the run


class Client:
    """:class:`mlflow.tracking.MlflowClient`, each of whose calls waits while MLflow is away, see :func:`patiently`.

    A run or an experiment is made once, whatever became of a call's answer. ``log_metric`` and ``log_table`` are the
    two calls which can't be repeated without harm: :class:`lit_rl.tracking.run_logger.RunLogger` has what takes their
    place.

    Args:
        uri: of the server or the database, which is made if it is an SQLite file that is not there.

    Raises:
        Away: no answer.
    """

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # or its patience would multiply ours
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", ONE_TRY)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for what was asked for
        self._uri = uri
        self._client = _connect(uri)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of a copy that has no attributes yet, for one
            raise AttributeError(name)
        return self._patient(getattr(self._client, name))

    def _patient(self, method: Any) -> Any:
        if not callable(method):
            return method

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return patiently(lambda: method(*args, **kwargs), self._uri)

        return call

    def create_run(self, experiment_id: str, *args: Any, tags: dict[str, Any] | None = None, **kwargs: Any) -> "Run":
        """One new run."""
        mark, tries = uuid.uuid4().hex, 0

        def create() -> "Run":
            nonlocal tries
            tries += 1
            made = tries > 1 and self._client.search_runs([experiment_id], f"tags.`{START}` = '{mark}'")
            own = {**(tags or {}), START: mark}
            return made[0] if made else self._client.create_run(experiment_id, *args, tags=own, **kwargs)

        return patiently(create, self._uri)

    def create_experiment(self, name: str, *args: Any, **kwargs: Any) -> str:
        """The id of the experiment of that name, which another process may make at the same time."""
        from mlflow.exceptions import MlflowException

        def create() -> str:
            try:
                return self._client.create_experiment(name, *args, **kwargs)
            except MlflowException as error:
                found = self._client.get_experiment_by_name(name) if "EXISTS" in error.error_code else None
                if found is None:
                    raise
                return found.experiment_id

        return patiently(create, self._uri)


def _connect(uri: str) -> Any:
    from mlflow.store.db import utils
    from mlflow.tracking import MlflowClient

    # it tells of tables that it makes, and prints a traceback for each error that it raises
    logging.getLogger(utils.__name__).setLevel(logging.CRITICAL)
    utils.MAX_RETRY_COUNT = 1  # again, our patience and no other
    make_tables(uri)
    return patiently(lambda: MlflowClient(uri), uri)


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or an SQLite database in ``mlruns/`` of the working directory.

    Raises:
        UsageError: a server that does not answer, a database without a name, or the file store, which MLflow no longer
            writes.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        try:
            FOLDER.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{FOLDER}: cannot make the folder here ({error.strerror}); go where you may write, or set "
                "MLFLOW_TRACKING_URI"
            ) from None
        return f"sqlite:///{FOLDER.resolve()}/mlflow.db"
    if uri.startswith(("http://", "https://")):
        try:
            patiently(lambda: _reach(uri), uri)
        except (OSError, ValueError, Away) as error:
            why = error.why if isinstance(error, Away) else reason(error)
            raise UsageError(
                f"MLFLOW_TRACKING_URI: no server answers at {shown(uri)} ({why}); start it or unset the variable"
            ) from None
    elif "://" not in uri or uri.startswith("file:"):
        raise UsageError(f"MLFLOW_TRACKING_URI is '{uri}', a folder; give sqlite:////path/mlflow.db or a server's URL")
    elif uri.startswith("sqlite:") and sqlite_file(uri) in (None, Path()):
        raise UsageError(f"MLFLOW_TRACKING_URI is '{uri}', which names no file; give sqlite:////path/mlflow.db")
    return uri


def _reach(uri: str) -> None:
    with suppress(urllib.error.HTTPError):  # somebody answers; MLflow will say what is wrong, a login for instance
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5).close()


def has_database(uri: str) -> bool:
    """Whether something may have been logged there: false for an SQLite file that does not exist."""
    path = sqlite_file(uri)
    return path is None or path.exists()


def experiment(name: str, uri: str) -> str:
    """The id of the experiment of that name, made (or restored) if there is none. So is a database.

    Raises:
        UsageError: the server or the database refuses, or is away.
    """
    return _use(uri, lambda client: _experiment(client, name, uri))


def has_run(run_id: str, uri: str) -> bool:
    """Whether there is a run of that id, not deleted.

    Raises:
        UsageError: the server or the database refuses, or is away.
    """
    return _use(uri, lambda client: _has_run(client, run_id))


def _use(uri: str, what: Callable[[Client], Any]) -> Any:
    try:
        return what(Client(uri))
    except UsageError:
        raise
    except Exception as error:  # of MLflow, SQLAlchemy, a driver, the system
        raise UsageError(
            f"MLFLOW_TRACKING_URI: {shown(uri)} can't be used ({reason(error)}); fix it or unset the variable"
        ) from None


def _experiment(client: Client, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    tags = {"mlflow.experimentKind": "custom_model_development"}
    location = f"{FOLDER.resolve()}/artifacts/{name}" if uri.startswith("sqlite:") else None
    return client.create_experiment(name, artifact_location=location, tags=tags)


def _has_run(client: Client, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
