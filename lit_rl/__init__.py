"""Response-level and token-level credit for reinforcement learning of language models."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow would look up a host at every run
