"""``results/<study>/``: the answer, the numbers and the figures, from MLflow, or from its own CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Screen

from ablations.analysis import (
    arm_table,
    comparisons,
    continuations,
    credit,
    effects,
    exact_table,
    gradient_noise,
    response_surface,
    secondary_differences,
    time_by_phase,
    value_accuracy,
    warning_tables,
)
from ablations.analysis.tables import Table
from ablations.records.study_results import FOLDER, StudyResults, load
from ablations.report import mlflow_view, overview, page
from ablations.study import Study
from lit_rl.tracking.address import has_database, tracking_uri

TABLES = "tables"
SHOWN = (
    *(arm_table.ARM, arm_table.SEEDS, arm_table.GREEDY, arm_table.SAMPLED, arm_table.GAIN),
    *(arm_table.TOKENS, arm_table.TIME, arm_table.PEAK),
)


def report(study: Study, smoke: bool) -> Path:
    """Writes the report and shows a table of its arms; returns the path of ``report.md``.

    Raises:
        UsageError: no cell of the study is finished, and it has no exact rows.
    """
    results = load(study, smoke)
    folder = FOLDER / study.label(smoke)
    folder.mkdir(parents=True, exist_ok=True)
    results.write_csv(folder)
    from ablations.report.figures import draw  # slow to import

    figures = draw(results, folder)
    tables = made(results)
    write(tables, folder / TABLES)
    (folder / TABLES / "README.md").write_text(page.guide(results, tables), encoding="utf-8")
    path = folder / "report.md"
    path.write_text(page.markdown(results, tables, figures), encoding="utf-8")
    if not smoke:
        overview.summarize(results, folder, page.command(results), page.answer(results))
        overview.write()
    if has_database(tracking_uri()):
        mlflow_view.publish(study, smoke)
    _show(study.label(smoke), tables[0])
    if results.outdated:
        print(f"{results.outdated} cells of earlier settings left out")
    print(f"{path}\nlook at the runs with: python -m ablations ui")
    return path


def made(results: StudyResults) -> list[Table]:
    """The report's tables: of the arms, and all others that have a row."""
    noise = continuations if results.study.kappas else gradient_noise
    others = (
        secondary_differences.table(results),
        comparisons.table(results),
        noise.table(results),
        continuations.by_task(results),
        credit.table(results),
        value_accuracy.table(results),
        time_by_phase.table(results),
        exact_table.table(results),
        effects.table(results),
        *response_surface.tables(results.study),
        *warning_tables.tables(results),
    )
    return [table for table in (arm_table.table(results), *others) if table.rows]


def write(tables: Sequence[Table], folder: Path) -> None:
    """A CSV a table; those of an earlier report are removed."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.csv"):
        old.unlink()
    for table in tables:
        with (folder / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table.csv())


def _show(title: str, table: Table) -> None:
    """On the terminal, the arms."""
    if table.name != "arms":
        return
    headings, *rows = table.shown(SHOWN)
    screen = Screen(title=title, box=box.SIMPLE_HEAD)
    for heading, *cells in zip(headings, *rows, strict=True):
        screen.add_column(heading, min_width=max(map(len, cells), default=0))  # a heading may take several lines
    for row in rows:
        screen.add_row(*row)
    Console(width=max(140, Console().width)).print(screen)
