"""What an iteration's time goes into."""

from statistics import fmean

from ablations.analysis.statistics import mean_interval
from ablations.analysis.tables import Column, Table, Value
from ablations.metric_names import MEMORY
from ablations.records.cell_result import CellResult
from ablations.records.study_results import SPENT, StudyResults

COLUMNS = (
    Column("arm"),
    Column("seeds"),
    *(Column(f"{phase} per trained token", "ms", ".2f") for phase in ("sampling", "scoring", "updates")),
    Column("sampled tokens per second", "", ".0f"),
    Column("kappa", "", ".2f", True),
    Column("peak memory", "MiB", ".0f"),
)
SAYS = "has each arm's time of sampling, scoring and updates per trained token, their ratio kappa, and memory."
GUIDE = (
    "Time per trained token of sampling (with continuations and greedy responses), scoring and updates (with "
    "log-probabilities); generated tokens per second of sampling; kappa, the time of updates per trained token over "
    "the time of sampling per generated token, with its 95% t interval; and the peak memory of the process. Means "
    "over seeds, of this machine, with as many cells at a time as the command says."
)


def table(results: StudyResults) -> Table:
    """A row an arm that was trained, if the phases' times are known."""
    rows: list[list[Value]] = []
    for arm in results.arms:
        cells = [cell for cell in results.of(arm) if cell.metrics.get(SPENT[0]) and cell.generated]
        if not cells:
            continue
        reuse = results.config(arm)["model"]["init_args"].get("reuse", False)
        trained = [_trained(cell, reuse) for cell in cells]
        spent = [fmean(1000 * c.metrics[s] / n for c, n in zip(cells, trained, strict=True)) for s in SPENT]
        speed = fmean(cell.generated / cell.metrics[SPENT[0]] for cell in cells)
        kappa = mean_interval([_kappa(cell, n) for cell, n in zip(cells, trained, strict=True)])
        rows.append([arm, len(cells), *spent, speed, kappa, fmean(cell.metrics.get(MEMORY, 0.0) for cell in cells)])
    return Table("time", "Time", SAYS, COLUMNS, rows, GUIDE)


def _trained(cell: CellResult, reuse: bool) -> float:
    """Tokens that were trained on, once each."""
    return cell.generated - (0.0 if reuse else cell.metrics.get("tokens/continued", 0.0))


def _kappa(cell: CellResult, trained: float) -> float:
    return (cell.metrics[SPENT[2]] / trained) / (cell.metrics[SPENT[0]] / cell.generated)
