"""MLflow: where runs go. Imports nothing heavy, so that commands which only look at runs answer at once."""

import os
import urllib.error
import urllib.request
from pathlib import Path

from lit_rl.errors import UsageError

FOLDER = Path("mlruns")


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or an SQLite database in ``mlruns/`` of the working directory.

    Raises:
        UsageError: a server that does not answer, or the file store, which MLflow no longer writes.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        FOLDER.mkdir(exist_ok=True)
        return f"sqlite:///{FOLDER.resolve()}/mlflow.db"
    if uri.startswith(("http://", "https://")):
        _reach(uri)
    elif "://" not in uri or uri.startswith("file:"):
        raise UsageError(f"MLFLOW_TRACKING_URI is '{uri}', a folder; give sqlite:////path/mlflow.db or a server's URL")
    return uri


def _reach(uri: str) -> None:
    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5).close()
    except urllib.error.HTTPError:
        return  # somebody answered; MLflow will say what is wrong, a missing login for instance
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(
            f"MLFLOW_TRACKING_URI: no server answers at {uri} ({reason}); start it or unset the variable"
        ) from None


def has_database(uri: str) -> bool:
    """Whether something may have been logged there: false for an SQLite file that does not exist."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///").split("?")[0]).exists()


def experiment(name: str, uri: str) -> str:
    """The id of the experiment of that name, made (or restored) if there is none. So is a database.

    Raises:
        UsageError: the server or the database refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _experiment(name, uri)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"MLFLOW_TRACKING_URI: {uri} can't be used ({reason}); mend it or unset the variable"
        ) from None


def _experiment(name: str, uri: str) -> str:
    from mlflow.entities import Experiment  # slow to import
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found: Experiment | None = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    tags = {"mlflow.experimentKind": "custom_model_development"}
    location = f"{FOLDER.resolve()}/artifacts/{name}" if uri.startswith("sqlite:") else None
    return client.create_experiment(name, artifact_location=location, tags=tags)


def has_run(run_id: str, uri: str) -> bool:
    """Whether there is a run of that id, not deleted."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        return MlflowClient(uri).get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:
        return False
