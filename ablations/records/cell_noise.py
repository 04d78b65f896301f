"""The gradient noise of a cell whose policy stayed as it is, and what a prompt's group of responses costs."""

import math
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

from ablations.config import Config
from ablations.metric_names import KAPPA, RESPONSE, SECOND, SECONDS, TOKEN
from ablations.records.cell_result import CellResult


class Noise(NamedTuple):
    """Of one cell's policy: per group, with what a group costs.

    Attributes:
        trace: tr Sigma; over |grad J|^2, where that was measured.
        signal: g . grad J / |grad J|^2, NaN where it was not.
        responses, generated, trained, seconds: of a group: its samples, the tokens that were generated for it, those
            that are trained on, and the time.
    """

    trace: float
    signal: float
    responses: float
    generated: float
    trained: float
    seconds: float

    def cost(self, unit: str) -> float:
        """Of a group in a ``response``, a generated ``token``, a ``second``, or in ``kappa=K``: generated tokens and
        trained ones, each of which costs K times as much."""
        if unit.startswith(KAPPA):
            return self.generated + float(unit.removeprefix(KAPPA)) * self.trained
        return {RESPONSE: self.responses, TOKEN: self.generated, SECOND: self.seconds}[unit]

    def log(self, unit: str) -> float:
        """Of tr Sigma, when as much is spent."""
        return math.log(self.trace * self.cost(unit))


def noise_of(cell: CellResult, config: Config) -> Noise | None:
    """None where fewer than two iterations behind critic pretraining were measured, or no gradient but 0 in them.

    Args:
        config: the cell's.
    """
    arguments, prompts = config["model"]["init_args"], config["data"]["prompts_per_iteration"]
    waits = arguments.get("critic_pretraining", 0)
    steps = [step for step in cell.curves.get("gradient/trace_cov", {}) if step > waits]
    if len(steps) < 2 or not any(cell.curves["gradient/trace_cov"][step] > 0 for step in steps):
        return None
    steps = sorted(steps)
    exact, signal = (cell.curves.get(f"credit/{name}", {}) for name in ("norm_sq", "signal"))
    generated, continued = (cell.curves.get(f"tokens/{name}", {}) for name in ("generated", "continued"))
    seconds = cell.curves[SECONDS]
    pairs = [(a, b) for a, b in pairwise(steps) if b == a + 1]

    def spent(curve: dict[int, float]) -> float:
        return fmean(curve.get(b, 0.0) - curve.get(a, 0.0) for a, b in pairs) / prompts

    norms = [exact[step] for step in steps] if all(step in exact for step in steps) else [1.0] * len(steps)
    own = 0.0 if arguments.get("reuse") else spent(continued)
    return Noise(
        fmean(cell.curves["gradient/trace_cov"][step] / norm for step, norm in zip(steps, norms, strict=True)),
        fmean(signal[step] for step in steps) if all(step in signal for step in steps) else math.nan,
        float(arguments.get("samples", 1)),
        spent(generated),
        spent(generated) - own,
        median(seconds[b] - seconds[a] for a, b in pairs) / prompts,
    )
