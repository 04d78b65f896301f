"""How near the estimated values of prefixes are to the truth."""

from statistics import fmean

from ablations.analysis.statistics import Interval, mean_interval
from ablations.records.cell_result import CellResult
from ablations.records.study_results import ACCURACY, StudyResults

WHAT = ("mae", "ranking", "spread")
COLUMNS = ("arm", "seeds", "mean absolute error", "of the best constant", "pairs in order, %")
CAPTION = (
    "Values of prefixes of responses against the mean of 256 new continuations each: the mean absolute error, in units "
    "of the reward, beside that of the best constant for prefixes of one length; and the share of pairs of prefixes of "
    "one prompt and length whose values stand in the right order, where the true ones differ by more than .1 (50% is "
    "chance). Mean over seeds and 95% t interval."
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


def table(results: StudyResults) -> list[list[str]]:
    """The rows below ``COLUMNS``."""
    rows = []
    for arm in arms(results):
        error, order, spread = (by_seed(results, arm, what) for what in WHAT)
        fewer = f" ({len(order)} seeds)" if len(order) < len(error) else ""  # no pair differs by enough in the others
        rows.append([arm, str(len(error)), _text(error), f"{fmean(spread):.3f}", _text(order, 100, 0) + fewer])
    return rows


def _last(cell: CellResult, name: str) -> float | None:
    curve = cell.curves.get(name, {})
    return curve[max(curve)] if curve else None


def _text(values: list[float], scale: float = 1, digits: int = 3) -> str:
    mean, low, high = (scale * x for x in mean_interval(values))
    return f"{mean:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if low == low else "")
