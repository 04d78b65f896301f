"""The credit of a study's arms against the exact one, from the curves ``credit/*`` of its runs."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from ablations.analysis.statistics import Interval, jackknife_interval, mean_interval
from ablations.analysis.tables import Column, Table, Value
from ablations.metric_names import CREDIT
from ablations.records.cell_result import CellResult
from ablations.records.study_results import StudyResults

COLUMNS = (
    Column("task"),
    Column("arm"),
    Column("sampled test accuracy", "%", ".1f"),
    Column("distance from exact shares", "", ".2f", True),
    Column("correlation with exact advantages", "", ".2f", True),
    Column("calibration slope", "", ".2f", True),
    Column("KL at half of the gain", "nats", ".2f", True),
    Column("seeds that reached half of the gain"),
    Column("part of the KL elsewhere", "%", ".0f", True),
)
SHOWN = 0.02  # of the exact gradient, that a position needs to be told from noise
SAYS = "has each arm's distance from exact credit, and how far its policy moved for half of the gain."
GUIDE = (
    "*Distance*: ½ Σ |share - exact share| over positions, 0 to 1; a position's share of the gradient is |g_t| / Σ "
    "|g_t|. *Correlation*: of estimated with exact advantages. *Calibration slope*: of exact on estimated advantages; "
    "1 is calibrated. These are means over iterations, weighted by what was left to earn (1 - training reward), then "
    "over seeds, with 95% t intervals. *KL*: from the start, where the exact mean reward is half way from its start "
    "to 1; *elsewhere*: its part at positions with less than 2% of the exact gradient at the start."
)


def arms(results: StudyResults) -> list[str]:
    """The arms whose credit was measured."""
    return [arm for arm in results.arms if _positions(results.of(arm)[0])]


def shares(results: StudyResults, arm: str, kind: str) -> dict[int, list[float]]:
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


def table(results: StudyResults) -> Table:
    """A row an arm whose credit was measured."""
    rows: list[list[Value]] = []
    for arm in arms(results):
        cells = results.of(arm)
        accuracy = fmean(results.by_seed(arm, "test/accuracy_sampled").values())
        measured = [[f(cell) for cell in cells] for f in (distance, correlation, slope)]
        moved = [found for cell in cells if (found := moved_at_half(cell)) is not None]
        totals = [sum(kl) for kl, _ in moved]
        elsewhere = [
            100 * sum(x for x, here in zip(kl, earns, strict=True) if not here) / total
            for (kl, earns), total in zip(moved, totals, strict=True)
        ]
        means = [mean_interval([v for v in values if v == v]) for values in (*measured, totals, elsewhere)]
        rows.append([results.study.arm(arm).task, arm, 100 * accuracy, *means[:-1], len(moved), means[-1]])
    return Table("credit", "Credit", SAYS, COLUMNS, rows, GUIDE)


def moved_at_half(cell: CellResult) -> tuple[list[float], list[bool]] | None:
    """KL from the start by position where half of the possible gain is reached, None if it is not, and which positions
    had at least 2% of the exact gradient at the start."""
    rewards = cell.curves.get(f"{CREDIT}objective", {})
    moved, exact = _by_iteration(cell, "kl"), _by_iteration(cell, "exact")
    if not rewards or not moved:
        return None
    half = (rewards[min(rewards)] + 1) / 2
    for before, after in pairwise(sorted(moved)):
        if rewards[before] < half <= rewards[after]:
            share = (half - rewards[before]) / (rewards[after] - rewards[before])
            kl = [a + share * (b - a) for a, b in zip(moved[before], moved[after], strict=True)]
            return kl, [x >= SHOWN for x in exact[min(exact)]]
    return None


def recovered(results: StudyResults, arm: str) -> dict[int, Interval]:
    """E[g_t] . e_t / |e_t|^2 by position, with e_t the exact g_t: the mean over iterations and seeds, weighted by the
    square of the position's exact share; positions with less than 2% of the exact gradient are left out."""
    sums = {cell.seed: _projections(cell) for cell in results.of(arm)}
    positions = range(_positions(results.of(arm)[0]))
    exact = [row for cell in results.of(arm) for row in _by_iteration(cell, "exact").values()]
    means = [fmean(column) for column in zip(*exact, strict=True)] if exact else []

    def pooled(t: int, seeds: Sequence[int]) -> float:
        return sum(sums[seed][t][0] for seed in seeds) / sum(sums[seed][t][1] for seed in seeds)

    return {
        t: jackknife_interval(lambda seeds, t=t: pooled(t, seeds), sorted(sums))  # type: ignore[misc]
        for t in positions
        if means and means[t] >= SHOWN
    }


def _projections(cell: CellResult) -> list[tuple[float, float]]:
    """At each position the sums over iterations of g_t . e_t and of |e_t|^2, in units of (sum_t |e_t|)^2."""
    exact, found = _by_iteration(cell, "exact"), _by_iteration(cell, "recovered")
    pairs = []
    for t in range(_positions(cell)):
        weights = {step: exact[step][t] ** 2 for step, row in found.items() if row[t] == row[t]}
        pairs.append((sum(w * found[step][t] for step, w in weights.items()), sum(weights.values())))
    return pairs


def distance(cell: CellResult) -> float:
    """Total variation between the positions' shares of the gradient and the exact ones; NaN if there is none."""
    exact = _by_iteration(cell, "exact")
    values = {
        step: sum(abs(a - b) for a, b in zip(share, exact[step], strict=True)) / 2
        for step, share in _by_iteration(cell, "share").items()
        if sum(share) > 0
    }
    return _mean(values, {step: _left(cell, step) for step in values})


def correlation(cell: CellResult) -> float:
    """Of the advantages with the exact ones, weighted by the positions' exact shares; NaN if there is none."""
    return _by_exact_share(cell, "correlation")


def slope(cell: CellResult) -> float:
    """Of the exact advantages on the estimated ones, weighted by the positions' exact shares; NaN if there is none."""
    return _by_exact_share(cell, "slope")


def _by_exact_share(cell: CellResult, kind: str) -> float:
    exact, values = _by_iteration(cell, "exact"), {}
    for step, row in _by_iteration(cell, kind).items():
        defined = {t: value for t, value in enumerate(row) if value == value}
        values[step] = _mean(defined, {t: exact[step][t] for t in defined})
    defined = {step: value for step, value in values.items() if value == value}
    return _mean(defined, {step: _left(cell, step) for step in defined})


def _positions(cell: CellResult) -> int:
    return sum(name.startswith(f"{CREDIT}exact/") for name in cell.curves)


def _by_iteration(cell: CellResult, kind: str) -> dict[int, list[float]]:
    """The values at all positions, NaN where they are undefined."""
    curves = [cell.curves.get(f"{CREDIT}{kind}/{t}", {}) for t in range(_positions(cell))]
    return {step: [curve.get(step, math.nan) for curve in curves] for step in sorted(set().union(*curves))}


def _left(cell: CellResult, step: int) -> float:
    return 1 - cell.curves["train/reward"][step]


def _mean(values: dict[int, float], weights: dict[int, float]) -> float:
    total = sum(weights.values())
    return sum(weights[i] * value for i, value in values.items()) / total if total > 0 else math.nan
