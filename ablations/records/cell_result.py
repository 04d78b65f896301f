"""One finished cell: its metrics, its curves, and what is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ablations.metric_names import CREDIT, SECONDS, STEPS


@dataclass(frozen=True)
class CellResult:
    """A finished cell: its last metrics, and its curves as metric -> iteration -> value.

    Attributes:
        diagnostics: curves of what the diagnostics logged, in a study with faults.
    """

    arm: str
    seed: int
    iterations: int
    commit: str
    config_hash: str
    run_id: str
    metrics: dict[str, float]
    curves: dict[str, dict[int, float]]
    diagnostics: dict[str, dict[int, float]] = field(default_factory=dict)

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


def recovered(cell: CellResult, positions: Sequence[str]) -> float | None:
    """sum g_t . e_t / sum |e_t|^2 over positions and measured iterations, with e_t the exact gradient of position t."""
    projected = squares = 0.0
    for t in positions:
        exact = cell.curves.get(f"{CREDIT}exact/{t}", {})
        for step, value in cell.curves.get(f"{CREDIT}recovered/{t}", {}).items():
            projected += value * exact[step] ** 2
            squares += exact[step] ** 2
    return projected / squares if squares else None
