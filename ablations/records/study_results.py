"""A study's finished cells, as MLflow has them, or the CSV of a report where there is no MLflow."""

import csv
import math
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from ablations import arm_colours
from ablations.config import Config, merge
from ablations.grid import Cell, find
from ablations.metric_names import (
    CREDIT,
    END,
    FLAGGED,
    KAPPA,
    NOISE,
    OVER_SECONDS,
    OVER_TOKENS,
    RECOVERED,
    RESPONSE,
    SECOND,
    SECONDS,
    STEPS,
    TOKEN,
)
from ablations.records import diagnostic_curves, exact_rows, metric_values
from ablations.records.cell_result import CellResult
from ablations.records.experiment import COMMIT, Tracking, identity
from ablations.study import Study
from lit_rl.errors import UsageError
from lit_rl.tracking.address import has_database, tracking_uri

FOLDER = Path("results")
DEFAULTS: Config = {"model": {"init_args": {}}, "data": {"prompts_per_iteration": 32}}
MOST_ARMS = 30  # of a table or figure with a row each
CELLS, CURVES_CSV = "cells.csv", "curves.csv"
TEST = ("test/accuracy", "test/accuracy_flexible", "test/accuracy_sampled")
SPENT = tuple(f"seconds/{phase}" for phase in ("sample", "score", "update"))  # in all iterations together
METRICS = (*TEST, "tokens/generated", "tokens/continued", "time/fit", *SPENT, "time/stages", "memory/peak")  # of cells
CRITIC = tuple(f"{phase}/{what}" for phase in ("pretraining", "critic") for what in ("explained_variance", "bias"))
GRADIENT = ("gradient/trace_cov", "gradient/norm_sq", "gradient/snr")
PHASES = ("time/sample", "time/score", "time/update")
MEASURED = ("val/accuracy", "val/accuracy_sampled", *GRADIENT)  # not in every iteration
CURVES = ("tokens/generated", "tokens/continued", SECONDS, STEPS, "train/reward", *CRITIC, *MEASURED)
ACCURACY = "value_accuracy/"
DIAGNOSTIC = "diagnostic/"  # begins what the callback of that name logs
MANY = (CREDIT, ACCURACY)  # what curves begin with that a callback logs by position
PREFIXES = (OVER_TOKENS, OVER_SECONDS, END)  # before a curve
OF_GRADIENTS = re.compile(rf"{RECOVERED}\d+(\+\d+)*|{NOISE}({RESPONSE}|{TOKEN}|{SECOND}|{KAPPA}\d+(\.\d+)?)")
NAMES = (*METRICS, *(f"{prefix}{curve}" for prefix in PREFIXES for curve in CURVES))  # of metrics that may decide


@dataclass(frozen=True)
class StudyResults:
    """The finished cells of a study as it is defined now; ``outdated`` counts those of earlier definitions.

    A study that has exact rows may have no cells. ``calibration`` has the cells of the seeds for calibration, which are
    never among ``cells``.
    """

    study: Study
    smoke: bool
    cells: tuple[CellResult, ...]
    outdated: int
    exact: tuple[dict[str, str], ...] = ()
    calibration: tuple[CellResult, ...] = ()

    def __post_init__(self) -> None:
        wrong = [cell for cell in self.cells if cell.seed in self.study.calibration]
        wrong += [cell for cell in self.calibration if cell.seed not in self.study.calibration]
        if wrong:
            raise ValueError(f"seed {wrong[0].seed} is on the wrong side of the calibration")

    @property
    def arms(self) -> list[str]:
        """The arms with a finished cell, in the study's order; frozen ones left out."""
        return [arm.name for arm in self.study.arms if not arm.frozen and self.of(arm.name)]

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

    def label(self, arm: str) -> str:
        """The arm's name within its task."""
        return arm_colours.label(self.study, arm)

    def of(self, arm: str) -> list[CellResult]:
        return [cell for cell in self.cells if cell.arm == arm]

    def config(self, arm: str) -> Config:
        """The arm's settings, with the defaults that a report reads."""
        return merge(DEFAULTS, merge(self.study.base, self.study.arm(arm).config))

    def value(self, cell: CellResult, metric: str) -> float | None:
        """Of :mod:`ablations.records.metric_values`."""
        budget = {axis: self.budget(cell.arm, axis) for axis in ("tokens", "seconds")}
        return metric_values.value(cell, metric, self.config(cell.arm), budget)

    def budget(self, arm: str, axis: str = "tokens") -> float:
        """Up to where the arm's curves are compared: of its settings, or the most that a cell has."""
        setting = {"tokens": "generated_tokens", "seconds": "seconds"}[axis]
        most = None if self.smoke else self.config(arm).get("budget", {}).get(setting)
        return float(most) if most else self._most[axis]

    @cached_property
    def _most(self) -> dict[str, float]:
        return {axis: max(max(cell.axis(axis).values()) for cell in self.cells) for axis in ("tokens", "seconds")}

    def by_seed(self, arm: str, metric: str) -> dict[int, float]:
        """The metric's :meth:`value`, by seed."""
        found = {cell.seed: self.value(cell, metric) for cell in self.of(arm)}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean_by_seed(self, arms: Sequence[str], metric: str) -> dict[int, float]:
        """The mean over some arms of the metric, for the seeds that all of them have."""
        each = [self.by_seed(arm, metric) for arm in arms]
        return {seed: fmean(values[seed] for values in each) for seed in sorted(set.intersection(*map(set, each)))}

    def curve(self, arm: str, metric: str) -> dict[int, list[float]]:
        """The metric's values over seeds, by iteration."""
        curves = [cell.curves.get(metric, {}) for cell in self.of(arm)]
        return {step: [c[step] for c in curves if step in c] for step in sorted({step for c in curves for step in c})}

    def first(self, arm: str, metric: str) -> dict[int, float]:
        """The metric's value where it was measured first, by seed."""
        return {cell.seed: curve[min(curve)] for cell in self.of(arm) if (curve := cell.curves.get(metric, {}))}

    def start_noise(self, arm: str) -> dict[int, float]:
        """tr Sigma / n of the first measured gradient: the variance of one iteration's gradient, by seed."""
        norms, snr = self.first(arm, "gradient/norm_sq"), self.first(arm, "gradient/snr")
        return {seed: norms[seed] / snr[seed] for seed in norms if snr.get(seed)}  # snr = n |G|^2 / tr Sigma

    def write_csv(self, folder: Path) -> None:
        """``cells.csv``, a line a cell, and ``curves.csv``, a line a cell and iteration: all that a report takes.

        Beside them ``diagnostics.csv`` in a study with faults.
        """
        if not self.cells:
            return
        cells = (*self.cells, *self.calibration)
        measured = {name for c in cells for name in c.curves if c.curves[name]}
        names = [name for name in CURVES if name in measured] + sorted(measured - set(CURVES))
        rows = [
            {"arm": c.arm, "seed": c.seed, **{name: c.metrics.get(name) for name in METRICS}}
            | {"iterations": c.iterations, "commit": c.commit, "config_hash": c.config_hash, "run_id": c.run_id}
            for c in cells
        ]
        points = [
            {
                **{"arm": c.arm, "seed": c.seed, "iteration": step},
                **{name: c.curves.get(name, {}).get(step) for name in names},
            }
            for c in cells
            for step in sorted({step for curve in c.curves.values() for step in curve})
        ]
        _write(folder / CELLS, rows)
        _write(folder / CURVES_CSV, points)
        if self.study.faults:
            diagnostic_curves.write(folder, cells)


def known(metric: str) -> bool:
    """Whether cells can have a value of that metric."""
    many = tuple(f"{prefix}{begin}" for prefix in PREFIXES for begin in MANY)
    return metric in NAMES or metric.startswith((*many, FLAGGED)) or OF_GRADIENTS.fullmatch(metric) is not None


def load(study: Study, smoke: bool, but: Collection[str] = ()) -> StudyResults:
    """Reads the study's experiment, or where it has nothing of the study, the CSV of its last report.

    Args:
        but: hashes of cells that are not read from the experiment: to read a cell takes calls to MLflow.

    Raises:
        UsageError: there are neither finished cells of the study as it is defined now, nor exact rows.
    """
    exact = exact_rows.read(FOLDER / study.label(smoke)) if study.exact else ()
    cells, outdated = _read_mlflow(study, smoke, but) if has_database(tracking_uri()) else ([], 0)
    if not cells:
        cells, outdated = _read_csv(study, smoke)
    cells.sort(key=lambda cell: (study.arm_names.index(cell.arm), cell.seed))
    calibration = tuple(cell for cell in cells if cell.seed in study.calibration)
    own = tuple(cell for cell in cells if cell.seed not in study.calibration)
    if not own and not exact:
        raise UsageError(
            f"{study.key} has no finished cells, neither in MLflow nor in {FOLDER / study.label(smoke)}; run them with "
            f"`python -m ablations {study.how}{' --smoke' if smoke else ''}`"
        )
    return StudyResults(study, smoke, own, outdated, exact, calibration)


def _read_mlflow(study: Study, smoke: bool, but: Collection[str]) -> tuple[list[CellResult], int]:
    """The finished cells, and how many there are of other definitions of the study."""
    tracking = Tracking(study.label(smoke))
    finished = {digest: run for digest, run in tracking.finished_cells().items() if digest not in but}
    found = [(find(study, *identity(run), smoke), run) for run in finished.values()]
    cells = [_from_run(tracking, cell, run, bool(study.faults)) for cell, run in found if cell is not None]
    return cells, len(finished) - len(cells)


def _from_run(tracking: Tracking, cell: Cell, run: Any, diagnosed: bool) -> CellResult:
    """Curves where something beside the training itself was measured, and at the end; to the digits of the CSV."""

    def history(metric: str) -> dict[int, float]:
        if metric not in run.data.metrics:
            return {}
        return {point.step: point.value for point in tracking.client.get_metric_history(run.info.run_id, metric)}

    many = sorted(name for name in run.data.metrics if name.startswith(MANY))
    curves = {metric: history(metric) for metric in (*CURVES, *many)}
    curves["tokens/generated"].setdefault(0, 0.0)
    phases = [history(phase) for phase in PHASES]
    steps = sorted(phases[-1])
    curves[SECONDS] = dict(zip(steps, accumulate(sum(p.get(step, 0.0) for p in phases) for step in steps), strict=True))
    last = max(curves["tokens/generated"])
    kept = {0, last}.union(*(curves[metric] for metric in (*MEASURED, *many)))
    curves = {
        metric: {step: _rounded(value) for step, value in curve.items() if step in kept}
        for metric, curve in curves.items()
    }
    metrics = dict.fromkeys(("tokens/generated", "time/fit", "time/stages"), 0.0)
    metrics |= {name: _rounded(run.data.metrics[name]) for name in METRICS if name in run.data.metrics}
    metrics |= {name: _rounded(sum(phase.values())) for name, phase in zip(SPENT, phases, strict=True)}
    names = [name for name in run.data.metrics if name.startswith(DIAGNOSTIC)] if diagnosed else []
    seen = {name.removeprefix(DIAGNOSTIC): diagnostic_curves.rounded(history(name)) for name in sorted(names)}
    return CellResult(
        cell.arm, cell.seed, last, run.data.tags[COMMIT], cell.hash, run.info.run_id, metrics, curves, seen
    )


def _rounded(value: float) -> float:
    """To the digits of the CSV; MLflow's databases have the largest float in the place of infinity."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else float(f"{value:.6g}")


def _read_csv(study: Study, smoke: bool) -> tuple[list[CellResult], int]:
    """The cells that ``write_csv`` wrote, and how many of them are of other definitions of the study."""
    folder = FOLDER / study.label(smoke)
    if not (folder / CELLS).is_file() or not (folder / CURVES_CSV).is_file():
        return [], 0
    curves: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    diagnostics = diagnostic_curves.read(folder) if study.faults else {}
    with (folder / CURVES_CSV).open(newline="") as file:
        for row in csv.DictReader(file):
            own = curves.setdefault((row.pop("arm"), int(row.pop("seed"))), {})
            step = int(row.pop("iteration"))
            for name, text in row.items():
                if text:
                    own.setdefault(name, {})[step] = float(text)
    cells, outdated = [], 0
    with (folder / CELLS).open(newline="") as file:
        for row in csv.DictReader(file):
            arm, seed, digest = row["arm"], int(row["seed"]), row["config_hash"]
            if find(study, arm, seed, digest, smoke) is None:
                outdated += 1
                continue
            metrics = {name: float(row[name]) for name in METRICS if row.get(name)}
            own, seen = (found.get((arm, seed), {}) for found in (curves, diagnostics))
            cells.append(
                CellResult(arm, seed, int(row["iterations"]), row["commit"], digest, row["run_id"], metrics, own, seen)
            )
    return cells, outdated


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
