"""Studies: what is compared, run as a grid of cells, reported from MLflow."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow would look up a host at every report
