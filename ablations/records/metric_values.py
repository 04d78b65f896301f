"""The value of a metric of :mod:`ablations.metric_names` in one cell."""

from ablations.config import Config
from ablations.metric_names import END, FLAGGED, NOISE, OVER_SECONDS, OVER_TOKENS, RECOVERED
from ablations.records.cell_noise import noise_of
from ablations.records.cell_result import CellResult, mean_to, recovered


def value(cell: CellResult, metric: str, config: Config, budget: dict[str, float]) -> float | None:
    """None where it was not measured.

    Args:
        config: the cell's.
        budget: of ``tokens`` and of ``seconds``.
    """
    if metric.startswith(RECOVERED):
        return recovered(cell, metric.removeprefix(RECOVERED).split("+"))
    if metric.startswith(NOISE):
        noise = noise_of(cell, config)
        return None if noise is None else noise.log(metric.removeprefix(NOISE))
    if metric.startswith(FLAGGED):
        return max(cell.diagnostics.get(f"flag/{metric.removeprefix(FLAGGED)}", {}).values(), default=None)
    for prefix, axis in ((OVER_TOKENS, "tokens"), (OVER_SECONDS, "seconds")):
        if metric.startswith(prefix):
            curve = cell.along(metric.removeprefix(prefix), axis)
            return mean_to(curve, budget[axis]) if curve else None
    if metric.startswith(END):
        values = cell.curves.get(metric.removeprefix(END), {})
        return values[max(values)] if values else None
    return cell.metrics.get(metric)
