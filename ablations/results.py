"""A study's finished cells, as MLflow has them, or the CSV of a report where there is no MLflow."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from ablations.study import Cell, Study, merge
from ablations.tracking import COMMIT, Tracking, identity
from lit_rl.errors import UsageError
from lit_rl.tracking import has_database, tracking_uri

FOLDER = Path("results")
MOST_ARMS = 30  # of a table or figure with a row each
CELLS, CURVES_CSV = "cells.csv", "curves.csv"
TEST = ("test/accuracy", "test/accuracy_flexible", "test/accuracy_sampled")
METRICS = (*TEST, "tokens/generated", "time/fit", "time/stages", "memory/peak")  # of cells.csv
CRITIC = tuple(f"{phase}/{what}" for phase in ("pretraining", "critic") for what in ("explained_variance", "bias"))
GRADIENT = ("gradient/trace_cov", "gradient/norm_sq", "gradient/snr")
PHASES = ("time/sample", "time/score", "time/update")
SECONDS, STEPS = "seconds", "progress/optimizer_steps"  # since the start: of training, and taken
MEASURED = ("val/accuracy", "val/accuracy_sampled", *GRADIENT)  # not in every iteration
CURVES = ("tokens/generated", SECONDS, STEPS, "train/reward", *CRITIC, *MEASURED)
CREDIT = "credit/"  # curves of what the callback of that name has measured: credit/<what>/<position>
OVER_TOKENS = "over_tokens/"  # before a curve's name: its mean over the budget of generated tokens
RECOVERED = "recovered/"


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

    def axis(self, name: str) -> dict[int, float]:
        """How far the cell was after each iteration: ``iterations``, ``tokens`` generated, ``steps`` of the optimizer
        or ``seconds`` of training (sampling, scoring and updates, without evaluation and observers)."""
        if name == "iterations":
            return {step: float(step) for step in self.curves["tokens/generated"]}
        metric = {"tokens": "tokens/generated", "seconds": SECONDS, "steps": STEPS}[name]
        return {0: 0.0} | self.curves.get(metric, {})

    def along(self, metric: str, axis: str = "tokens") -> dict[float, float]:
        """A curve by place on an axis."""
        places = self.axis(axis)
        return {places[step]: value for step, value in sorted(self.curves.get(metric, {}).items()) if step in places}


@dataclass(frozen=True)
class Results:
    """The finished cells of a study as it is defined now; ``outdated`` counts those of earlier definitions."""

    study: Study
    smoke: bool
    cells: tuple[Result, ...]
    outdated: int

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
        return arm.removesuffix(", frozen").removeprefix(self.study.arm(arm).task).strip()

    def of(self, arm: str) -> list[Result]:
        return [cell for cell in self.cells if cell.arm == arm]

    def value(self, cell: Result, metric: str) -> float | None:
        """A metric's last value; behind ``over_tokens/`` the mean of a curve over the budget of generated tokens;
        behind ``recovered/`` how much of the exact gradient of positions such as ``1+3`` estimates have on average."""
        if metric.startswith(RECOVERED):
            return _recovered(cell, metric.removeprefix(RECOVERED).split("+"))
        if not metric.startswith(OVER_TOKENS):
            return cell.metrics.get(metric)
        curve = cell.along(metric.removeprefix(OVER_TOKENS))
        return mean_to(curve, self.budget(cell.arm)) if curve else None

    def budget(self, arm: str) -> float:
        """Generated tokens up to which the arm's curves are compared: of its settings, or the most that a cell has."""
        settings = merge(self.study.base, self.study.arm(arm).config).get("budget", {})
        tokens = None if self.smoke else settings.get("generated_tokens")
        return float(tokens) if tokens else max(cell.generated for cell in self.cells)

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
        """``cells.csv``, a line a cell, and ``curves.csv``, a line a cell and iteration: all that a report takes."""
        measured = {name for c in self.cells for name in c.curves if c.curves[name]}
        names = [name for name in CURVES if name in measured] + sorted(measured - set(CURVES))
        rows = [
            {"arm": c.arm, "seed": c.seed, **{name: c.metrics.get(name) for name in METRICS}}
            | {"iterations": c.iterations, "commit": c.commit, "config_hash": c.config_hash, "run_id": c.run_id}
            for c in self.cells
        ]
        points = [
            {
                **{"arm": c.arm, "seed": c.seed, "iteration": step},
                **{name: c.curves.get(name, {}).get(step) for name in names},
            }
            for c in self.cells
            for step in sorted({step for curve in c.curves.values() for step in curve})
        ]
        _write(folder / CELLS, rows)
        _write(folder / CURVES_CSV, points)


def mean_to(curve: dict[float, float], end: float) -> float:
    """The mean height of a curve from its first place to ``end``, by trapezoids; behind its last place it stays."""
    places = sorted(curve)
    area = 0.0
    for left, right in pairwise([*places, max(end, places[-1])]):
        before, after = curve[left], curve.get(right, curve[left])
        if right <= end:
            area += (right - left) * (before + after) / 2
        elif left < end:
            share = (end - left) / (right - left)
            area += (end - left) * (before + before + share * (after - before)) / 2
    return area / (end - places[0]) if end > places[0] else curve[places[0]]


def _recovered(cell: Result, positions: Sequence[str]) -> float | None:
    """sum g_t . e_t / sum |e_t|^2 over positions and measured iterations, with e_t the exact gradient of position t."""
    projected = squares = 0.0
    for t in positions:
        exact = cell.curves.get(f"{CREDIT}exact/{t}", {})
        for step, value in cell.curves.get(f"{CREDIT}recovered/{t}", {}).items():
            projected += value * exact[step] ** 2
            squares += exact[step] ** 2
    return projected / squares if squares else None


def load(study: Study, smoke: bool) -> Results:
    """Reads the study's experiment, or where it has nothing of the study, the CSV of its last report.

    Raises:
        UsageError: there are no finished cells of the study as it is defined now.
    """
    cells, outdated = _read_mlflow(study, smoke) if has_database(tracking_uri()) else ([], 0)
    if not cells:
        cells, outdated = _read_csv(study, smoke)
    if not cells:
        command = f"python -m ablations run {study.name}{'' if study.scale == 'tiny' else f' --scale {study.scale}'}"
        raise UsageError(
            f"{study.key} has no finished cells, neither in MLflow nor in {FOLDER / study.label(smoke)}; run them with "
            f"`{command}{' --smoke' if smoke else ''}`"
        )
    cells.sort(key=lambda cell: (study.arm_names.index(cell.arm), cell.seed))
    return Results(study, smoke, tuple(cells), outdated)


def _read_mlflow(study: Study, smoke: bool) -> tuple[list[Result], int]:
    """The finished cells, and how many there are of other definitions of the study."""
    tracking = Tracking(study.label(smoke))
    finished = tracking.finished_cells()
    found = [(study.find(*identity(run), smoke), run) for run in finished.values()]
    cells = [_from_run(tracking, cell, run) for cell, run in found if cell is not None]
    return cells, len(finished) - len(cells)


def _from_run(tracking: Tracking, cell: Cell, run: Any) -> Result:
    """Curves where something beside the training itself was measured, and at the end; to the digits of the CSV."""

    def history(metric: str) -> dict[int, float]:
        if metric not in run.data.metrics:
            return {}
        return {point.step: point.value for point in tracking.client.get_metric_history(run.info.run_id, metric)}

    credit = sorted(name for name in run.data.metrics if name.startswith(CREDIT))
    curves = {metric: history(metric) for metric in (*CURVES, *credit)}
    curves["tokens/generated"].setdefault(0, 0.0)
    phases = [history(phase) for phase in PHASES]
    steps = sorted(phases[-1])
    curves[SECONDS] = dict(zip(steps, accumulate(sum(p.get(step, 0.0) for p in phases) for step in steps), strict=True))
    last = max(curves["tokens/generated"])
    kept = {0, last}.union(*(curves[metric] for metric in (*MEASURED, *credit)))
    curves = {
        metric: {step: _rounded(value) for step, value in curve.items() if step in kept}
        for metric, curve in curves.items()
    }
    metrics = dict.fromkeys(("tokens/generated", "time/fit", "time/stages"), 0.0)
    metrics |= {name: _rounded(run.data.metrics[name]) for name in METRICS if name in run.data.metrics}
    return Result(cell.arm, cell.seed, last, run.data.tags[COMMIT], cell.hash, run.info.run_id, metrics, curves)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _read_csv(study: Study, smoke: bool) -> tuple[list[Result], int]:
    """The cells that ``write_csv`` wrote, and how many of them are of other definitions of the study."""
    folder = FOLDER / study.label(smoke)
    if not (folder / CELLS).is_file() or not (folder / CURVES_CSV).is_file():
        return [], 0
    curves: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
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
            if study.find(arm, seed, digest, smoke) is None:
                outdated += 1
                continue
            metrics = {name: float(row[name]) for name in METRICS if row[name]}
            own = curves.get((arm, seed), {})
            cells.append(Result(arm, seed, int(row["iterations"]), row["commit"], digest, row["run_id"], metrics, own))
    return cells, outdated


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
