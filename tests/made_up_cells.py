"""Results of a study that never ran, for tests of what is concluded from such."""

import numpy as np

from ablations.analysis.tables import Table
from ablations.metric_names import SECONDS
from ablations.records.cell_result import CellResult
from ablations.records.study_results import StudyResults
from ablations.study import Arm, Comparison, Study

SEEDS = range(10)
PAIRS = (
    Comparison(("x b",), ("x a",), "above", "it was made so"),
    Comparison(("x c",), ("x a",), "equal"),
    Comparison(("x b", "y b"), ("x a", "y a"), name="b against a, all tasks"),
)


def records(table: Table) -> list[dict[str, str]]:
    """A table as whoever reads its CSV has it."""
    headings, *rows = table.csv()
    return [dict(zip(headings, row, strict=True)) for row in rows]


def cell(arm: str, seed: int, accuracy: float, curves=None) -> CellResult:
    curves = {"val/accuracy_sampled": {0: 0.0, 1: accuracy, 2: 1.0}, **(curves or {})}
    curves |= {"tokens/generated": {0: 0.0, 1: 100.0, 2: 200.0}, SECONDS: {1: 1.0, 2: 2.5}}
    metrics = {"test/accuracy_sampled": accuracy, "tokens/generated": 200.0, "time/fit": 3.0}
    return CellResult(arm, seed, 2, "commit", "hash", f"{arm}{seed}", metrics, curves)


def made_up() -> StudyResults:
    """Ten seeds of three arms in two tasks: b is a tenth above a and c."""
    rng = np.random.default_rng(0)
    arms = tuple(Arm(f"{task} {name}", {}, f"{task} a", task=task) for task in "xy" for name in "abc")
    study = Study("s", "?", "here", arms, "x a", "test/accuracy_sampled", PAIRS)
    level = {"a": 0.5, "b": 0.6, "c": 0.5}
    cells = []
    for seed in SEEDS:
        shared = rng.normal(0, 0.1)  # paired away
        for arm in arms:
            own = rng.normal(0, 0.02)
            cells.append(cell(arm.name, seed, level[arm.name[-1]] + shared + own))
    return StudyResults(study, False, tuple(cells), 0)
