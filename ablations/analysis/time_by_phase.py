"""What an iteration's time goes into."""

from statistics import fmean

from ablations.analysis.statistics import mean_interval
from ablations.metric_names import MEMORY
from ablations.records.cell_result import CellResult
from ablations.records.study_results import SPENT, StudyResults

COLUMNS = ("arm", "seeds", "sampling", "scoring", "updates", "tokens/s sampled", "kappa", "peak MiB")
CAPTION = (
    "Milliseconds of training a trained token: sampling (continuations and greedy responses among it), scoring, "
    "updates (the log-probabilities before them among those); generated tokens a second of sampling; and kappa, the "
    "seconds of updates a trained token over those of sampling a generated one. Mean over seeds, of kappa with its 95% "
    "t interval; of this machine, as many cells at a time as the command says. Peak memory is that of the process."
)


def table(results: StudyResults) -> list[list[str]]:
    """The rows below ``COLUMNS``, one an arm that was trained, if the phases' times are known."""
    rows = []
    for arm in results.arms:
        cells = [cell for cell in results.of(arm) if cell.metrics.get(SPENT[0]) and cell.generated]
        if not cells:
            continue
        reuse = results.config(arm)["model"]["init_args"].get("reuse", False)
        trained = [_trained(cell, reuse) for cell in cells]
        spent = [fmean(1000 * c.metrics[s] / n for c, n in zip(cells, trained, strict=True)) for s in SPENT]
        speed = fmean(cell.generated / cell.metrics[SPENT[0]] for cell in cells)
        kappas = [_kappa(cell, n) for cell, n in zip(cells, trained, strict=True)]
        kappa, peak = mean_interval(kappas), fmean(cell.metrics.get(MEMORY, 0.0) for cell in cells)
        bounds = f" [{kappa.low:.2f}, {kappa.high:.2f}]" if kappa.low == kappa.low else ""
        times = [f"{each:.2f}" for each in spent]
        rows.append([arm, str(len(cells)), *times, f"{speed:,.0f}", f"{kappa.mean:.2f}{bounds}", f"{peak:,.0f}"])
    return rows


def _trained(cell: CellResult, reuse: bool) -> float:
    """Tokens that were trained on, once each."""
    return cell.generated - (0.0 if reuse else cell.metrics.get("tokens/continued", 0.0))


def _kappa(cell: CellResult, trained: float) -> float:
    return (cell.metrics[SPENT[2]] / trained) / (cell.metrics[SPENT[0]] / cell.generated)
