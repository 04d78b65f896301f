"""A study's exact rows: computed without training, and kept as CSV, of which the report is made."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

EXACT = "exact.csv"
ROUNDING = 1e-9  # what is smaller is the computer's


def write(rows: Sequence[Mapping[str, str | float]], folder: Path) -> Path:
    """``exact.csv``, numbers with six digits; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / EXACT
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: text(value) for name, value in row.items()} for row in rows)
    return path


def read(folder: Path) -> tuple[dict[str, str], ...]:
    """The rows; none where there is no such file."""
    path = folder / EXACT
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def text(value: str | float) -> str:
    """As in the CSV."""
    return value if isinstance(value, str) else f"{0.0 if abs(value) < ROUNDING else value:.6g}"
