"""``results/<study>/``: the answer, the numbers and the figures, from MLflow, or from its own CSV."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from ablations.analysis import (
    comparisons,
    continuations,
    credit,
    gradient_noise,
    secondary_differences,
    task_tables,
    time_by_phase,
    value_accuracy,
)
from ablations.analysis.comparisons import ENOUGH_SEEDS, markdown, points
from ablations.analysis.statistics import mean_interval, paired_interval
from ablations.records.cell_result import CellResult
from ablations.records.study_results import FOLDER, MOST_ARMS, StudyResults, load
from ablations.report import overview
from ablations.study import Study

COLUMNS = (
    "arm",
    "seeds",
    "test greedy, %",
    "test sampled, %",
    "gain in sampled, points",
    "generated tokens",
    "seconds, with evaluation",
    "peak MiB",
    "tr Σ / n at start",
    "tr Σ / ‖G‖² at start",
)
NOISE = (
    "Σ is the covariance of the gradient of one prompt's group of responses, G its mean. tr Σ / n, with n groups, is "
    "the variance of an iteration's gradient; compare it between arms of equal G (REINFORCE, RLOO and ReMax with one "
    "loss denominator; rescaled advantages have another G). tr Σ / ‖G‖² is the ratio of the means over seeds of "
    "unbiased estimates; 'unresolved' where the 95% interval of ‖G‖² reaches 0."
)
TRAINED = (
    "Brackets are 95% t intervals over training seeds, if nothing else is said; gains are paired by seed: both sides "
    "started from the same weights and answered the same problems. The problems are the same for all seeds, and the "
    "intervals know nothing of others. They are not corrected for the number of comparisons."
)
MEASURED = (
    "Brackets are 95% t intervals over seeds, if nothing else is said: each draws other prompts and responses, the "
    "same for all arms. They are not corrected for the number of comparisons."
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
    from ablations.report.figures import draw  # slow to import

    figures = draw(results, folder)
    rows = table(results)
    path = folder / "report.md"
    path.write_text(_markdown(results, rows, figures), encoding="utf-8")
    if not smoke:
        overview.summarize(results, folder, command(results))
        overview.write()
    shown = Table(title=study.label(smoke), box=box.SIMPLE_HEAD)
    for column in COLUMNS[:SHOWN]:
        shown.add_column(column, no_wrap=True)
    for row in rows:
        shown.add_row(*row[:SHOWN])
    if rows:
        Console(width=max(160, Console().width)).print(shown)
    if results.outdated:
        print(f"{results.outdated} cells of earlier settings left out")
    print(f"{path}\nlook at the runs with: python -m ablations ui")
    return path


def table(results: StudyResults) -> list[list[str]]:
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
                points(mean_interval(list(results.by_seed(arm, "test/accuracy").values()))),
                points(mean_interval(list(results.by_seed(arm, "test/accuracy_sampled").values()))),
                "" if arm == baseline else points(gain, signed=True),
                f"{fmean(cell.generated for cell in cells):,.0f}",
                _seconds(cells),
                f"{fmean(peaks):,.0f}" if (peaks := list(results.by_seed(arm, "memory/peak").values())) else "",
                *_noise(results, arm),
            ]
        )
    return rows


def limits(results: StudyResults) -> list[str]:
    """What to keep in mind when reading the answer."""
    study = results.study
    counts = {arm: len(results.of(arm)) for arm in study.arm_names}
    found = [
        TRAINED if results.arms else MEASURED,
        *([NOISE] if any(results.first(arm, "gradient/norm_sq") for arm in results.arms) else []),
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


def command(results: StudyResults) -> str:
    """What runs these cells again."""
    seeds, scale = results.seeds, results.study.scale
    parts = ["python -m ablations run", results.study.name]
    if scale != "tiny":
        parts.append(f"--scale {scale}")
    if seeds != list(results.study.seeds):
        counted = seeds == list(range(len(seeds)))
        parts.append(f"--seeds {len(seeds) if counted else ' '.join(map(str, seeds))}")
    return " ".join([*parts, *(["--smoke"] if results.smoke else [])])


def _markdown(results: StudyResults, rows: list[list[str]], figures: dict[str, str]) -> str:
    study = results.study
    commits = sorted({cell.commit for cell in results.cells})
    tokens = sum(cell.generated for cell in results.cells)
    seconds = sum(cell.seconds for cell in results.cells)
    budget = f"; stated budget: {study.hours:g} hours of two cores, trials among them" if study.hours else ""
    tables = task_tables.tables(results)
    width = len(COLUMNS) if any(any(row[SHOWN:]) for row in rows) else SHOWN  # noise, where it was measured
    lines = [
        f"# {study.label(results.smoke)}",
        f"{study.question}\n\n{study.source}",
        "## Answer",
        comparisons.answer(results),
        *comparisons.section(results, "Planned comparisons", study.comparisons),
        *secondary_differences.section(results),
        *comparisons.section(results, "Controls", study.controls),
        *comparisons.section(results, "Exploratory comparisons", study.exploratory),
        *([markdown(COLUMNS[:width], [row[:width] for row in rows])] if 0 < len(rows) <= MOST_ARMS else []),
        *(part for caption, columns, cells in tables for part in (caption, markdown(columns, cells))),
        *_frozen(results),
        *_values(results),
        *_phases(results),
        *([markdown(credit.COLUMNS, measured), credit.CAPTION] if (measured := credit.table(results)) else []),
        *(f"![{file}]({file})\n\n{caption}" for file, caption in figures.items()),
        "## Limits",
        "\n".join(f"- {limit}" for limit in limits(results)),
        "## How it was made",
        f"    {command(results)}",
        f"Commit {', '.join(commits)}{' (mixed: not all cells ran the same code)' if len(commits) > 1 else ''}. "
        f"{len(results.cells)} cells, {tokens:,.0f} generated tokens, {seconds:,.0f} seconds with evaluation, one "
        f"thread a cell{budget}. The numbers are in [cells.csv](cells.csv) and [curves.csv](curves.csv).",
        *_tuning(results),
    ]
    return "\n\n".join(lines) + "\n"


def _frozen(results: StudyResults) -> list[str]:
    """A table a task, of the gradients measured at frozen policies."""
    groups = gradient_noise.groups(results)
    if not groups:
        return []
    swept = bool(results.study.kappas)
    caption = continuations.caption(results) if swept else gradient_noise.caption(results)
    parts = [
        "## Gradients at frozen policies",
        caption,
        *([said] if swept and (said := continuations.theory(results)) else []),
    ]
    for first, arms in groups.items():
        columns, rows = (
            (continuations.columns(results), continuations.table(results, arms))
            if swept
            else (list(gradient_noise.COLUMNS), gradient_noise.table(results, arms))
        )
        parts += [f"{results.study.arm(first).task}:", markdown(columns, rows)]
    return parts


def _values(results: StudyResults) -> list[str]:
    rows = value_accuracy.table(results)
    return ["## Values of prefixes", markdown(value_accuracy.COLUMNS, rows), value_accuracy.CAPTION] if rows else []


def _phases(results: StudyResults) -> list[str]:
    rows = time_by_phase.table(results)
    return (
        ["## Time", markdown(time_by_phase.COLUMNS, rows), time_by_phase.CAPTION] if 0 < len(rows) <= MOST_ARMS else []
    )


def _tuning(results: StudyResults) -> list[str]:
    tuning = results.study.tuning
    if tuning is None:
        return []
    rates: dict[str, float] = {}
    for arm in results.study.arms:
        if arm.rate is not None:
            rates[arm.rate] = arm.config["model"]["init_args"]["learning_rate"]
    edges = min(tuning.rates), max(tuning.rates)
    chosen = ", ".join(f"{name} {rate:g}{' (at the edge)' if rate in edges else ''}" for name, rate in rates.items())
    seeds = ", ".join(map(str, tuning.seeds))
    tried = ", ".join(f"{rate:g}" for rate in tuning.rates)
    return [
        f"Learning rates: each arm tried {tried} on seed{'s' if len(tuning.seeds) > 1 else ''} {seeds}, which the "
        f"study does not use, and took the best by the primary metric, its mean over tasks: {chosen}."
        + ("" if results.smoke else " The trials' scores are in [tuning.csv](tuning.csv).")
    ]


def _seconds(cells: Sequence[CellResult]) -> str:
    """Of training and, behind a plus, of what was made for it."""
    stages = fmean(cell.stage_seconds for cell in cells)
    return f"{fmean(cell.seconds for cell in cells):,.0f}" + (f" + {stages:,.0f}" if stages else "")


def _noise(results: StudyResults, arm: str) -> list[str]:
    """At the weights that all arms start from; an arm that generates nothing follows another gradient."""
    traces, norms = (list(results.first(arm, f"gradient/{name}").values()) for name in ("trace_cov", "norm_sq"))
    if not norms or not fmean(norms) or not any(cell.generated for cell in results.of(arm)):
        return ["", ""]
    unresolved = "" if mean_interval(norms).low > 0 else " (unresolved)"
    noise = mean_interval(list(results.start_noise(arm).values()))
    spread = "" if noise.low != noise.low else f" [{noise.low:.2g}, {noise.high:.2g}]"
    return [f"{noise.mean:.2g}{spread}", f"{fmean(traces) / fmean(norms):,.0f}{unresolved}"]
