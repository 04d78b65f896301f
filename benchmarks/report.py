"""Writes ``results/performance``: ``lines.json`` and CSV files from measurements, then report and figure from them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu import kernels, ready
from benchmarks.measure import Line, device
from benchmarks.performance import PHASES, kappa, operators, phases, scaling
from benchmarks.reading import trees
from benchmarks.report_text import short, text
from lit_rl.errors import UsageError

Row = dict[str, Any]
TABLES = ("scaling", "phases", "operators", "kappa", "trees", "gpu_kernels")


def add(folder: Path, lines: Sequence[Line]) -> None:
    """Stores the lines among those of the folder's report, and writes its page anew.

    Raises:
        UsageError: the folder has no report.
    """
    machine, known, tables = _stored(folder)
    lines = _merged(known, lines)
    _store(folder, lines)
    (folder / "report.md").write_text(text(lines, tables, machine))


def write(folder: Path, lines: Sequence[Line]) -> None:
    """Measures the tables, and stores them with the lines; lines that were not measured now stay as they were there."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"scaling": scaling(), "phases": phases(), "operators": operators(), "kappa": kappa(), "trees": trees()}
    if ready():
        tables["gpu_kernels"] = kernels()
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: short(value) for key, value in row.items()} for row in rows)
    _store(folder, _merged(_lines(folder) if (folder / "lines.json").exists() else [], lines))
    (folder / "machine.json").write_text(json.dumps({"machine": device()}) + "\n")
    rewrite(folder)


def rewrite(folder: Path) -> None:
    """Report and figure anew from the files in the folder; nothing is measured.

    Raises:
        UsageError: ``lines.json``, ``machine.json`` or a table is not there.
    """
    machine, lines, tables = _stored(folder)
    draw(folder, tables)
    (folder / "report.md").write_text(text(lines, tables, machine))


def _stored(folder: Path) -> tuple[str, list[Line], dict[str, list[Row]]]:
    try:
        machine = json.loads((folder / "machine.json").read_text())["machine"]
        lines = _lines(folder)
        tables = {name: _table(folder / f"{name}.csv") for name in TABLES if name != "gpu_kernels"}
    except FileNotFoundError as error:
        raise UsageError(
            f"{error.filename} is not there; python -m benchmarks --report {folder} measures all that a report needs"
        ) from None
    if (folder / "gpu_kernels.csv").exists():  # made where there is a GPU
        tables["gpu_kernels"] = _table(folder / "gpu_kernels.csv")
    return machine, lines, tables


def _merged(known: Sequence[Line], lines: Sequence[Line]) -> list[Line]:
    """In the order of those known; a line that was measured again takes its place."""
    return list({line.name: line for line in (*known, *lines)}.values())


def _store(folder: Path, lines: Sequence[Line]) -> None:
    (folder / "lines.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


def _lines(folder: Path) -> list[Line]:
    return [Line(**each) for each in json.loads((folder / "lines.json").read_text())]


def _table(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [{key: _parsed(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _parsed(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def draw(folder: Path, tables: dict[str, list[Row]]) -> None:
    """Phases as stacked bars, and the rates against rows and length."""
    import matplotlib  # of the extra ablations; the environment of vLLM has none
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    bars, by_rows, by_length = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    names = list(dict.fromkeys(row["algorithm"] for row in tables["phases"]))
    left = [0.0] * len(names)
    shades = ("#0b3954", "#1f6f8b", "#5fa8b8", "#b9d6dc", "#f2c57c", "#e08e45", "#b5482f", "#6b2737", "#cccccc")
    for phase, shade in zip((*PHASES, "rest"), shades, strict=True):
        values = [row["seconds"] for row in tables["phases"] if row["phase"] == phase]
        bars.barh(names, values, left=left, color=shade, label=phase)
        left = [a + b for a, b in zip(left, values, strict=True)]
    bars.invert_yaxis()
    bars.set_xlabel("seconds an iteration of 256 responses")
    bars.legend(fontsize=7, ncols=3, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for axis, by, label in ((by_rows, "rows", "rows at once"), (by_length, "length", "tokens a response")):
        rows = [row for row in tables["scaling"] if row["by"] == by]
        for key, name, shade in (("decoded_per_s", "decoded", "#b5482f"), ("read_per_s", "read at once", "#0b3954")):
            axis.plot([row[by] for row in rows], [row[key] for row in rows], "o-", color=shade, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks([row[by] for row in rows], [str(row[by]) for row in rows])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel(label)
    by_rows.set_ylabel("tokens / s")
    by_rows.legend(fontsize=8, frameon=False)
    for axis in (bars, by_rows, by_length):
        axis.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "benchmarks"}):  # the same numbers give the same file
        figure.savefig(folder / "performance.png", dpi=150)
        figure.savefig(folder / "performance.svg", metadata={"Date": None})
