"""What MLflow's database in a folder has of runs, read past MLflow."""

import json
import sqlite3
from pathlib import Path
from typing import Any


def histories(folder: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """All points by metric, but for what the machine decides; then the rows of the transcripts."""
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        query = (
            "select key, step, case when is_nan then 'nan' else value end from metrics where run_uuid = ? order by 1, 2"
        )
        rows = database.execute(query, (run_id,)).fetchall()
        ((status, uri),) = database.execute("select status, artifact_uri from runs where run_uuid = ?", (run_id,))
    assert status == "FINISHED", status
    found: dict[str, Any] = {}
    for key, step, value in rows:
        found.setdefault(key, []).append((step, value))
    for key, points in found.items():
        steps = [step for step, _ in points]
        assert len(set(steps)) == len(steps), f"{key} has a step twice: {steps}"
    found = {k: [s for s, _ in v] if k.startswith(("time/", "memory/")) else v for k, v in found.items()}
    served = folder / "artifacts" / "/".join(uri.split("/")[-3:]) if uri.startswith("mlflow-artifacts:") else Path(uri)
    found["transcripts"] = json.loads((served / "transcripts.json").read_text())
    return found


def active_runs(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        return [row[0] for row in database.execute("select run_uuid from runs where lifecycle_stage = 'active'")]
