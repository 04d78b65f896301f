"""``results/<study>/``: the answer, the numbers and the figures, from MLflow alone."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from ablations import comparisons, credit
from ablations.results import Result, Results, load
from ablations.statistics import Interval, mean_interval, paired_interval
from ablations.study import Study

FOLDER = Path("results")
ENOUGH_SEEDS = 8
COLUMNS = (
    "arm",
    "seeds",
    "test greedy, %",
    "test sampled, %",
    "gain in sampled, points",
    "generated tokens",
    "seconds",
    "peak MiB",
    "tr Σ / n at start",
    "tr Σ / ‖G‖² at start",
)
STAGES = (
    "Seconds behind a plus: what is made before a cell runs, a reward model or a DPO policy. Its tokens are not among "
    "the generated ones."
)
SHOWN = 8  # of these columns on the terminal


def report(study: Study, smoke: bool) -> Path:
    """Writes the report and shows its table; returns the path of ``report.md``.

    Raises:
        UsageError: no cell of the study is finished.
    """
    results = load(study, smoke)
    folder = FOLDER / study.label(smoke)
    folder.mkdir(parents=True, exist_ok=True)
    results.write_csv(folder)
    from ablations.figures import draw  # slow to import

    figures = draw(results, folder)
    rows = table(results)
    path = folder / "report.md"
    path.write_text(_markdown(results, rows, figures), encoding="utf-8")
    shown = Table(title=study.label(smoke), box=box.SIMPLE_HEAD)
    for column in COLUMNS[:SHOWN]:
        shown.add_column(column, no_wrap=True)
    for row in rows:
        shown.add_row(*row[:SHOWN])
    Console(width=max(160, Console().width)).print(shown)
    print(f"{path}\nlook at the runs with: python -m ablations ui")
    return path


def table(results: Results) -> list[list[str]]:
    """The rows below ``COLUMNS``, one an arm."""
    rows = []
    for arm in results.arms:
        baseline = results.study.baseline_of(arm)
        cells = results.of(arm)
        gain = paired_interval(
            results.by_seed(arm, "test/accuracy_sampled"), results.by_seed(baseline, "test/accuracy_sampled")
        )
        rows.append(
            [
                arm,
                str(len(cells)),
                _percent(mean_interval(list(results.by_seed(arm, "test/accuracy").values()))),
                _percent(mean_interval(list(results.by_seed(arm, "test/accuracy_sampled").values()))),
                "" if arm == baseline else _percent(gain, signed=True),
                f"{fmean(cell.generated for cell in cells):,.0f}",
                _seconds(cells),
                f"{fmean(peaks):,.0f}" if (peaks := list(results.by_seed(arm, "memory/peak").values())) else "",
                *_noise(results, arm),
            ]
        )
    return rows


def limits(results: Results) -> list[str]:
    """What to keep in mind when reading the answer."""
    study = results.study
    counts = {arm: len(results.of(arm)) for arm in study.arm_names}
    found = [
        "Brackets are 95% t intervals over training seeds; gains are paired by seed, so that both sides answered the "
        "same problems with the same sampling streams. The problems are the same for all seeds, and the intervals know "
        "nothing of others. They are not corrected for the number of comparisons.",
        "Σ is the covariance of the gradient of one prompt's group of responses, G its mean. tr Σ / n, with n groups, "
        "is the variance of an iteration's gradient; compare it between arms of equal G (REINFORCE, RLOO and ReMax "
        "with one loss denominator; rescaled advantages have another G). tr Σ / ‖G‖² is the ratio of the means over "
        "seeds of unbiased estimates; 'unresolved' where the 95% interval of ‖G‖² reaches 0.",
        *([STAGES] if any(cell.stage_seconds for cell in results.cells) else []),
        *study.notes,
    ]
    if min(counts.values()) < ENOUGH_SEEDS:
        found.insert(0, f"A **pilot**: fewer than {ENOUGH_SEEDS} seeds an arm.")
    if len(set(counts.values())) > 1:
        found.append("Finished seeds: " + ", ".join(f"{arm} {n}" for arm, n in counts.items()) + ".")
    if results.smoke:
        found.insert(0, "A **smoke run** at tiny sizes: its numbers mean nothing.")
    return found


def _markdown(results: Results, rows: list[list[str]], figures: dict[str, str]) -> str:
    study = results.study
    seeds = results.seeds
    counted = seeds == list(range(len(seeds)))
    options = f"--seeds {len(seeds) if counted else ' '.join(map(str, seeds))}{' --smoke' if results.smoke else ''}"
    commits = sorted({cell.commit for cell in results.cells})
    outdated = f" {results.outdated} cells of earlier settings left out." if results.outdated else ""
    tokens = sum(cell.generated for cell in results.cells)
    seconds = sum(cell.seconds for cell in results.cells)
    lines = [
        f"# {study.label(results.smoke)}",
        f"{study.question}\n\n{study.source}",
        "## Answer",
        comparisons.answer(results),
        _table(COLUMNS, rows),
        *([_table(credit.COLUMNS, measured), credit.CAPTION] if (measured := credit.table(results)) else []),
        *(f"![{file}]({file})\n\n{caption}" for file, caption in figures.items()),
        "## Limits",
        "\n".join(f"- {limit}" for limit in limits(results)),
        "## How it was made",
        f"    python -m ablations run {study.name} {options}",
        f"Commit {', '.join(commits)}{' (mixed: not all cells ran the same code)' if len(commits) > 1 else ''}. "
        f"{len(results.cells)} cells, {tokens:,.0f} generated tokens, {seconds:,.0f} seconds of training, one thread a "
        f"cell.{outdated} The numbers are in [cells.csv](cells.csv) and [curves.csv](curves.csv).",
    ]
    return "\n\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def _percent(interval: Interval, signed: bool = False) -> str:
    """An accuracy, or a difference of two, with its interval if there is one."""
    sign = "+" if signed else ""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:{sign}.1f}" if low != low or low == high else f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _seconds(cells: Sequence[Result]) -> str:
    """Of training and, behind a plus, of what was made for it."""
    stages = fmean(cell.stage_seconds for cell in cells)
    return f"{fmean(cell.seconds for cell in cells):,.0f}" + (f" + {stages:,.0f}" if stages else "")


def _noise(results: Results, arm: str) -> list[str]:
    """At the weights that all arms start from; an arm that generates nothing follows another gradient."""
    traces, norms = (list(results.first(arm, f"gradient/{name}").values()) for name in ("trace_cov", "norm_sq"))
    if not norms or not fmean(norms) or not any(cell.generated for cell in results.of(arm)):
        return ["", ""]
    unresolved = "" if mean_interval(norms).low > 0 else " (unresolved)"
    noise = mean_interval(list(results.start_noise(arm).values()))
    spread = "" if noise.low != noise.low else f" [{noise.low:.2g}, {noise.high:.2g}]"
    return [f"{noise.mean:.2g}{spread}", f"{fmean(traces) / fmean(norms):,.0f}{unresolved}"]
