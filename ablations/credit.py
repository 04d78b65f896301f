"""The credit of a study's arms against the exact one, from the curves ``credit/*`` of its runs."""

import math
from statistics import fmean

from ablations.results import CREDIT, Result, Results
from ablations.statistics import mean_interval

COLUMNS = ("arm", "test sampled, %", "distance from exact shares", "correlation with exact advantages")
CAPTION = (
    "Each mean is over the iterations measured, weighted by what was left to earn there (1 - training reward), then "
    "over seeds, with 95% t interval. Distance: ½ Σ |share - exact share| over positions, from 0 to 1; a position's "
    "share is |g_t| / Σ |g_t|, g_t being what its tokens add to the gradient of one iteration. Correlation: of "
    "advantages and exact ones over responses, position by position, weighted by the positions' exact shares."
)


def arms(results: Results) -> list[str]:
    """The arms whose credit was measured."""
    return [arm for arm in results.arms if _positions(results.of(arm)[0])]


def shares(results: Results, arm: str, kind: str) -> dict[int, list[float]]:
    """Mean over seeds of each position's share of the gradient, ``share`` or ``exact``, by iteration.

    Seeds whose gradient was 0 are left out; where all were, the shares are NaN.
    """
    found: dict[int, list[list[float]]] = {}
    for cell in results.of(arm):
        for step, values in _by_iteration(cell, kind).items():
            rows = found.setdefault(step, [])
            if sum(values) > 0:
                rows.append(values)
    nothing = [[math.nan] * _positions(results.of(arm)[0])]
    return {step: list(map(fmean, zip(*(found[step] or nothing), strict=True))) for step in sorted(found)}


def table(results: Results) -> list[list[str]]:
    """The rows below ``COLUMNS``, one an arm whose credit was measured."""
    rows = []
    for arm in arms(results):
        accuracy = fmean(results.by_seed(arm, "test/accuracy_sampled").values())
        measured = [[f(cell) for cell in results.of(arm)] for f in (distance, correlation)]
        rows.append([arm, f"{100 * accuracy:.1f}", *(_number([v for v in values if v == v]) for values in measured)])
    return rows


def distance(cell: Result) -> float:
    """Total variation between the positions' shares of the gradient and the exact ones; NaN if there is none."""
    exact = _by_iteration(cell, "exact")
    values = {
        step: sum(abs(a - b) for a, b in zip(share, exact[step], strict=True)) / 2
        for step, share in _by_iteration(cell, "share").items()
        if sum(share) > 0
    }
    return _mean(values, {step: _left(cell, step) for step in values})


def correlation(cell: Result) -> float:
    """Of the advantages with the exact ones, weighted by the positions' exact shares; NaN if there is none."""
    exact, values = _by_iteration(cell, "exact"), {}
    for step, row in _by_iteration(cell, "correlation").items():
        defined = {t: value for t, value in enumerate(row) if value == value}
        values[step] = _mean(defined, {t: exact[step][t] for t in defined})
    defined = {step: value for step, value in values.items() if value == value}
    return _mean(defined, {step: _left(cell, step) for step in defined})


def _positions(cell: Result) -> int:
    return sum(name.startswith(f"{CREDIT}exact/") for name in cell.curves)


def _by_iteration(cell: Result, kind: str) -> dict[int, list[float]]:
    """The values at all positions, NaN where they are undefined."""
    curves = [cell.curves.get(f"{CREDIT}{kind}/{t}", {}) for t in range(_positions(cell))]
    return {step: [curve.get(step, math.nan) for curve in curves] for step in sorted(set().union(*curves))}


def _left(cell: Result, step: int) -> float:
    return 1 - cell.curves["train/reward"][step]


def _mean(values: dict[int, float], weights: dict[int, float]) -> float:
    total = sum(weights.values())
    return sum(weights[i] * value for i, value in values.items()) / total if total > 0 else math.nan


def _number(values: list[float]) -> str:
    if not values:
        return ""
    interval = mean_interval(values)
    bounds = f" [{interval.low:.2f}, {interval.high:.2f}]" if interval.low == interval.low else ""
    return f"{interval.mean:.2f}{bounds}"
