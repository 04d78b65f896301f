"""Lightning's MLflow logger, pointed at this project's runs."""

import time
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from lit_rl.tracking import FOLDER, experiment, tracking_uri


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, with this project's default for where runs go.

    Args:
        experiment_name: made on first use.
        run_name: None takes the time. (MLflow would draw a name from Python's seeded generator: one name for all runs.)
        tags: of the run.
        run_id: go on with this run.
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
        self.interrupted = False  # by a signal

    @property
    def save_dir(self) -> str:
        """Checkpoints go here, under the experiment's and the run's id; MLflow itself has the artifacts."""
        return str(FOLDER / "checkpoints")

    def finalize(self, status: str = "success") -> None:
        super().finalize("KILLED" if self.interrupted else status)
