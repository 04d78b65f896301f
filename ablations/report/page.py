"""``report.md``: on its first page question, answer, one figure and the planned comparisons; below them the rest."""

from collections.abc import Sequence

from ablations.analysis import (
    arm_table,
    comparisons,
    continuations,
    effects,
    exact_table,
    response_surface,
    secondary_differences,
    warning_tables,
)
from ablations.analysis.tables import Table
from ablations.analysis.verdicts import ENOUGH_SEEDS, verdicts
from ablations.metric_names import FLAGGED
from ablations.records.exact_rows import EXACT
from ablations.records.study_results import StudyResults
from ablations.report.answer_figure import ANSWER
from ablations.report.surface_figures import ALLOCATION, SURFACE
from ablations.study import Comparison

FIGURES = "Means over seeds, with 95% intervals."
TRIALS = (f"{ALLOCATION}.png", f"{SURFACE}.png")  # figures that stand beside the trials' tables
HEADINGS = (
    exact_table.HEADING,
    *response_surface.HEADINGS,
    "Warnings",
    "By task",
    "By arm",
    "Gradient noise",
    "Credit",
    "Values",
    "Time",
)
ANNOUNCED = "Not made yet. Predicted, and why:\n"
UNTRAINED = "No cell has been trained yet: all that stands here was enumerated."
GUIDE = "[tables/README.md](tables/README.md) explains the columns."
COLUMNS = (
    "Units stand in brackets behind a column's name. 'low' and 'high' are the limits of a 95% interval. What is empty "
    "is not known or not resolved. Arms have the names that they have in cells.csv."
)
TRAINED = (
    "Brackets are 95% t intervals over seeds, not corrected for the number of comparisons. All seeds have the same "
    "problems, so intervals do not cover others."
)
MEASURED = (
    "Brackets are 95% t intervals over seeds, not corrected for the number of comparisons. Each seed draws other "
    "prompts and responses, the same for all arms."
)
NOISE = (
    "Compare the noise of gradients, tr Σ, between arms of equal mean G only: REINFORCE, RLOO and ReMax with one loss "
    "denominator; rescaled advantages have another G."
)

SAME = (
    "{comparison}: equal in every seed. Have they learned yet (learning rate, warm-up, iterations), and are there "
    "enough problems to tell them apart?"
)


def markdown(results: StudyResults, tables: Sequence[Table], figures: dict[str, str]) -> str:
    """The page.

    Args:
        tables: those that were written; figures: captions by file name.
    """
    study = results.study
    shown = {name: figure(name, caption) for name, caption in figures.items()}
    further = [text for name, text in shown.items() if name not in (ANSWER, *TRIALS)]
    planned = verdicts(results, study.comparisons)
    lines = [
        f"# {study.question}",
        answer(results),
        *([shown[ANSWER]] if ANSWER in shown else []),
        *warning_tables.page(results),
        *(
            [
                "## Planned comparisons",
                comparisons.shown(
                    planned, known=comparisons.matters(planned), beside=secondary_differences.columns(results)
                ),
                " ".join(
                    [comparisons.legend(planned, "planned comparisons"), secondary_differences.legend(results)]
                ).strip(),
            ]
            if planned
            else []
        ),
        *([] if results.cells else ["## Planned comparisons", "\n".join([ANNOUNCED, *comparisons.announced(study)])]),
        "## Details",
        *([study.source] if study.source else []),
        *(
            ["\n".join(["Predicted, and why, in the order of the table:\n", *reasons])]
            if (reasons := comparisons.reasons(planned))
            else []
        ),
        *(link(table) for table in tables if table.heading == "Details"),
        GUIDE,
        *_others(results, "Controls", study.controls),
        *_others(results, "Exploratory", study.exploratory),
    ]
    for heading in HEADINGS:
        if own := [link(table) for table in tables if table.heading == heading]:
            theory = continuations.theory(results) if heading == "Gradient noise" and study.kappas else ""
            if heading == exact_table.HEADING and results.cells:  # without, the answer says it
                theory = _enumerated(results)
            drawn = [shown[name] for name in TRIALS if name in shown and heading in response_surface.HEADINGS]
            lines += [f"## {heading}", *drawn, *own, *([theory] if theory else [])]
    lines += [
        *(["## Figures", FIGURES, *further] if further else []),
        "## Limits",
        "\n".join(f"- {limit}" for limit in limits(results)),
        "## How it was made",
        f"    {command(results)}",
        making(results),
        *(link(table) for table in tables if table.heading == "How it was made"),
    ]
    return "\n\n".join(lines) + "\n"


def answer(results: StudyResults) -> str:
    """What the study found: in its own words or, without such, how many arms gained and what was compared."""
    if not results.cells:
        return f"{results.study.exactly or _enumerated(results)} {UNTRAINED}"
    parts = [comparisons.answer(results), response_surface.answer(results.study)]
    starts = {arm for each in results.study.comparisons for arm in each.against} & set(results.groups)
    if not comparisons.reading(results) and not starts:
        parts.insert(0, arm_table.sentence(results))
    seeds = _fewest(results)
    if results.smoke:
        parts.insert(0, "A **smoke run** at tiny sizes: its numbers mean nothing.")
    if seeds < ENOUGH_SEEDS:
        parts.append(
            f"This is a **pilot**, with fewer than {ENOUGH_SEEDS} seeds per arm: it shows no more than a trend."
        )
    return " ".join(filter(None, [results.study.exactly, *parts]))


def _enumerated(results: StudyResults) -> str:
    return " ".join(filter(None, (effects.sentence(results), exact_table.sentence(results))))


def link(table: Table) -> str:
    """A table's file and what stands in it."""
    path = f"tables/{table.name}.csv"
    return f"[{path}]({path}) {table.says}"


def figure(name: str, caption: str) -> str:
    """An image with its caption."""
    return f"![{name.removesuffix('.png')}]({name})\n\n{caption}"


def guide(results: StudyResults, tables: Sequence[Table]) -> str:
    """What the columns of the tables mean, as a page beside them."""
    parts = [f"## {table.name}.csv\n\nIt {table.says} {table.guide}".strip() for table in tables]
    return "\n\n".join([f"# Tables of {results.study.label(results.smoke)}", COLUMNS, *parts]) + "\n"


def limits(results: StudyResults) -> list[str]:
    """What to keep in mind when reading the answer."""
    counts = {arm: len(results.of(arm)) for arm in results.study.arm_names}
    found = [
        *([TRAINED if results.arms else MEASURED] if results.cells else []),
        *([NOISE] if any(results.first(arm, "gradient/norm_sq") for arm in results.arms) else []),
        *results.study.notes,
    ]
    for each in verdicts(results, results.study.comparisons):
        if len(each.differences) > 1 and not any(each.differences) and not each.metric.startswith(FLAGGED):
            found.append(SAME.format(comparison=each.comparison))
    if len(set(counts.values())) > 1:
        found.append("Finished seeds: " + ", ".join(f"{arm} {n}" for arm, n in counts.items()) + ".")
    return found


def command(results: StudyResults) -> str:
    """What runs these cells again."""
    seeds = results.seeds
    parts = ["python -m ablations", results.study.how]
    if results.cells and seeds != list(results.study.own_seeds(results.smoke)):
        counted = seeds == list(range(len(seeds)))
        parts.append(f"--seeds {len(seeds) if counted else ' '.join(map(str, seeds))}")
    return " ".join([*parts, *(["--smoke"] if results.smoke else [])])


def making(results: StudyResults) -> str:
    """Code, cost and files of the cells."""
    exact = f"[{EXACT}]({EXACT})" if results.exact else ""
    if not results.cells:
        return f"Data: {exact}."
    commits = sorted({cell.commit for cell in results.cells})
    tokens = sum(cell.generated for cell in results.cells)
    seconds = sum(cell.seconds for cell in results.cells)
    hours = results.study.hours
    budget = f" (budget, with trials: {hours:g} hour{'s' if hours != 1 else ''} of two cores)" if hours else ""
    mixed = " (not all cells ran the same code)" if len(commits) > 1 else ""
    trials = ", [tuning.csv](tuning.csv)" if results.study.tuning and not results.smoke else ""
    return (
        f"Commit {', '.join(commits)}{mixed}. {len(results.cells)} cells, {tokens:,.0f} generated tokens, "
        f"{seconds:,.0f} seconds with evaluation, one thread per cell{budget}. Data: [cells.csv](cells.csv), "
        f"[curves.csv](curves.csv){trials}{exact and ', '}{exact}."
    )


def _others(results: StudyResults, title: str, wanted: Sequence[Comparison]) -> list[str]:
    """Comparisons that are adjusted among themselves."""
    found = verdicts(results, wanted)
    if not found:
        return []
    known = comparisons.matters(verdicts(results, results.study.comparisons))  # the legend says it
    said = comparisons.controls(found) if title == "Controls" else "These were chosen after the results were seen."
    return [
        f"## {title}",
        f"{said} {comparisons.others(found, results.study.primary_metric)}".strip(),
        comparisons.shown(found, comparisons.OTHERS, known),
    ]


def _fewest(results: StudyResults) -> int:
    return min(len(results.of(arm)) for arm in results.study.arm_names)
