"""``diagnostics.csv``: what the diagnostics of each cell logged in every iteration, a line a cell and metric.

A line holds the values in the order of iterations, in one field, with a dash where nothing was measured: as a line an
iteration it would be ten times as long.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from ablations.records.cell_result import CellResult

FILE, NONE = "diagnostics.csv", "-"
Curves = dict[str, dict[int, float]]


def rounded(curve: Mapping[int, float]) -> dict[int, float]:
    """To the digits of the CSV."""
    return {step: float(f"{value:.4g}") for step, value in curve.items()}


def write(folder: Path, cells: Iterable[CellResult]) -> None:
    with (folder / FILE).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("arm", "seed", "metric", "values by iteration"))
        for cell in cells:
            for name, curve in sorted(cell.diagnostics.items()):
                steps = range(1, max(curve, default=0) + 1)
                values = (f"{curve[step]:.4g}" if step in curve else NONE for step in steps)
                writer.writerow((cell.arm, cell.seed, name, " ".join(values)))


def read(folder: Path) -> dict[tuple[str, int], Curves]:
    """By arm and seed what :func:`write` wrote; nothing without the file."""
    found: dict[tuple[str, int], Curves] = {}
    if (folder / FILE).is_file():
        with (folder / FILE).open(newline="") as file:
            for row in csv.DictReader(file):
                values = enumerate(row["values by iteration"].split(), 1)
                curve = {step: float(value) for step, value in values if value != NONE}
                found.setdefault((row["arm"], int(row["seed"])), {})[row["metric"]] = curve
    return found
