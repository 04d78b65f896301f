"""How near the estimated values of prefixes are to the truth."""

from statistics import fmean

from ablations.analysis.statistics import Interval, mean_interval
from ablations.analysis.tables import Column, Table, Value
from ablations.records.cell_result import CellResult
from ablations.records.study_results import ACCURACY, StudyResults

WHAT = ("mae", "ranking", "spread")
COLUMNS = (
    Column("arm"),
    Column("seeds"),
    Column("mean absolute error", "", ".3f", True),
    Column("error of the best constant", "", ".3f"),
    Column("pairs in the right order", "%", ".0f", True),
    Column("seeds with such pairs"),
)
SAYS = "has the error of each arm's values of prefixes, and how often they order two prefixes correctly."
GUIDE = (
    "Values of prefixes against the mean of 256 new continuations of each. The mean absolute error is in units of the "
    "reward, beside that of the best constant for prefixes of one length. Pairs are prefixes of one prompt and "
    "length whose true values differ by more than .1 (chance is 50%). Means over seeds, with 95% t intervals."
)


def arms(results: StudyResults) -> list[str]:
    """The arms whose values were measured, frozen ones too."""
    return [arm for arm in results.study.arm_names if by_seed(results, arm, "mae")]


def by_seed(results: StudyResults, arm: str, what: str) -> list[float]:
    """Where it was measured last."""
    return [value for cell in results.of(arm) if (value := _last(cell, f"{ACCURACY}{what}")) is not None]


def by_position(results: StudyResults, arm: str, what: str) -> dict[int, Interval]:
    """By tokens of the prefix, where at least half of the seeds have it."""
    start = f"{ACCURACY}{what}/"
    places = sorted({int(n.removeprefix(start)) for c in results.of(arm) for n in c.curves if n.startswith(start)})
    found = {t: [v for c in results.of(arm) if (v := _last(c, f"{start}{t}")) is not None] for t in places}
    enough = max(2, len(results.of(arm)) / 2)
    return {t: mean_interval(values) for t, values in found.items() if len(values) >= enough}


def table(results: StudyResults) -> Table:
    """A row an arm whose values were measured."""
    rows: list[list[Value]] = []
    for arm in arms(results):
        error, order, spread = (by_seed(results, arm, what) for what in WHAT)
        percent = [100 * share for share in order]
        rows.append([arm, len(error), mean_interval(error), fmean(spread), mean_interval(percent), len(order)])
    return Table("values", "Values", SAYS, COLUMNS, rows, GUIDE)


def _last(cell: CellResult, name: str) -> float | None:
    curve = cell.curves.get(name, {})
    return curve[max(curve)] if curve else None
