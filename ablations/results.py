"""A study's finished cells, as MLflow has them."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.study import Study
from ablations.tracking import COMMIT, Tracking, identity
from lit_rl.errors import UsageError

TEST = ("test/accuracy", "test/accuracy_flexible", "test/accuracy_sampled")
CRITIC = tuple(f"{phase}/{what}" for phase in ("pretraining", "critic") for what in ("explained_variance", "bias"))
GRADIENT = ("gradient/trace_cov", "gradient/norm_sq", "gradient/snr")
CURVES = ("tokens/generated", "train/reward", "val/accuracy", "val/accuracy_sampled", *GRADIENT, *CRITIC)
CREDIT = "credit/"  # curves of what the callback of that name has measured: credit/<what>/<position>


@dataclass(frozen=True)
class Result:
    """A finished cell: its last metrics, and its curves as metric -> iteration -> value."""

    arm: str
    seed: int
    iterations: int
    commit: str
    config_hash: str
    run_id: str
    metrics: dict[str, float]
    curves: dict[str, dict[int, float]]

    @property
    def generated(self) -> float:
        return self.metrics.get("tokens/generated", 0.0)

    @property
    def seconds(self) -> float:
        return self.metrics.get("time/fit", 0.0)

    @property
    def stage_seconds(self) -> float:
        """Of what was made before the cell ran."""
        return self.metrics.get("time/stages", 0.0)


@dataclass(frozen=True)
class Results:
    """The finished cells of a study as it is defined now; ``outdated`` counts those of earlier definitions."""

    study: Study
    smoke: bool
    cells: tuple[Result, ...]
    outdated: int

    @property
    def arms(self) -> list[str]:
        """The arms with a finished cell, in the study's order."""
        return [arm for arm in self.study.arm_names if self.of(arm)]

    @property
    def groups(self) -> dict[str, list[str]]:
        """The arms with a finished cell, by the baseline that they share."""
        groups: dict[str, list[str]] = {}
        for arm in self.arms:
            groups.setdefault(self.study.baseline_of(arm), []).append(arm)
        return groups

    @property
    def seeds(self) -> list[int]:
        return sorted({cell.seed for cell in self.cells})

    def of(self, arm: str) -> list[Result]:
        return [cell for cell in self.cells if cell.arm == arm]

    def by_seed(self, arm: str, metric: str) -> dict[int, float]:
        """The metric's last value, by seed."""
        return {cell.seed: cell.metrics[metric] for cell in self.of(arm) if metric in cell.metrics}

    def curve(self, arm: str, metric: str) -> dict[int, list[float]]:
        """The metric's values over seeds, by iteration."""
        curves = [cell.curves.get(metric, {}) for cell in self.of(arm)]
        return {step: [c[step] for c in curves if step in c] for step in sorted({step for c in curves for step in c})}

    def first(self, arm: str, metric: str) -> dict[int, float]:
        """The metric's value where it was measured first, by seed."""
        return {cell.seed: curve[min(curve)] for cell in self.of(arm) if (curve := cell.curves[metric])}

    def start_noise(self, arm: str) -> dict[int, float]:
        """tr Sigma / n of the first measured gradient: the variance of one iteration's gradient, by seed."""
        norms, snr = self.first(arm, "gradient/norm_sq"), self.first(arm, "gradient/snr")
        return {seed: norms[seed] / snr[seed] for seed in norms if snr.get(seed)}  # snr = n |G|^2 / tr Sigma

    def write_csv(self, folder: Path) -> None:
        """``cells.csv``, a line a cell, and ``curves.csv``, a line a cell and iteration."""
        rows = [
            {"arm": c.arm, "seed": c.seed, **{name: c.metrics.get(name) for name in TEST}}
            | {"tokens/generated": c.generated, "time/fit": c.seconds, "time/stages": c.stage_seconds}
            | {"memory/peak": c.metrics.get("memory/peak"), "iterations": c.iterations}
            | {"commit": c.commit, "config_hash": c.config_hash, "run_id": c.run_id}
            for c in self.cells
        ]
        _write(folder / "cells.csv", rows)
        names = list(dict.fromkeys(name for c in self.cells for name in c.curves))
        points = [
            {
                **{"arm": c.arm, "seed": c.seed, "iteration": step},
                **{name: c.curves.get(name, {}).get(step) for name in names},
            }
            for c in self.cells
            for step in sorted({step for curve in c.curves.values() for step in curve})
        ]
        _write(folder / "curves.csv", points)


def load(study: Study, smoke: bool) -> Results:
    """Reads the study's experiment.

    Raises:
        UsageError: it has no finished cells of the study as it is defined now.
    """
    tracking = Tracking(study.label(smoke))
    cells = []
    finished = tracking.finished_cells()
    for run in finished.values():
        cell = study.find(*identity(run), smoke)
        if cell is None:
            continue
        curves = {
            metric: {point.step: point.value for point in tracking.client.get_metric_history(run.info.run_id, metric)}
            for metric in (*CURVES, *sorted(name for name in run.data.metrics if name.startswith(CREDIT)))
        }
        curves["tokens/generated"].setdefault(0, 0.0)
        code, metrics = run.data.tags[COMMIT], run.data.metrics
        cells.append(Result(cell.arm, cell.seed, cell.iterations, code, cell.hash, run.info.run_id, metrics, curves))
    if not cells:
        command = f"python -m ablations run {study.name}{' --smoke' if smoke else ''}"
        raise UsageError(f"{study.name} has no finished cells in MLflow; run them with `{command}`")
    cells.sort(key=lambda cell: (study.arm_names.index(cell.arm), cell.seed))
    return Results(study, smoke, tuple(cells), len(finished) - len(cells))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
