"""The committed reports: short, with all the tables that they link, and made of the CSV beside them."""

import csv
import re
from pathlib import Path

import pytest

from ablations.records.study_results import FOLDER, load
from ablations.report import page, study_report
from ablations.studies import STUDIES
from ablations.sweep.tuning import tuned

ROOT = Path(__file__).resolve().parents[1]
REPORTED = [key for key in STUDIES if (ROOT / FOLDER / key / "report.md").is_file()]
MOST_WORDS = 1200
QUICK = "sampling_budget-mid"  # of one task: its tables are made in a second


@pytest.fixture(params=REPORTED)
def folder(request) -> Path:
    return ROOT / FOLDER / request.param


def test_a_report_is_short_and_its_first_page_has_one_figure_and_one_table(folder):
    text = (folder / "report.md").read_text()
    assert len(text.split()) <= MOST_WORDS
    first = text[: text.index("\n## Details")]
    assert first.startswith("# ") and first.count("![") == 1 and "(answer.png)" in first
    trained = (folder / "cells.csv").is_file()
    assert len(re.findall(r"^\| comparison \|", first, re.MULTILINE)) == trained


def test_each_table_is_linked_explained_and_has_rows(folder):
    text = (folder / "report.md").read_text()
    linked = set(re.findall(r"\(tables/(\w+\.csv)\)", text))
    assert linked == {path.name for path in (folder / "tables").glob("*.csv")}
    assert ("comparisons.csv" if (folder / "cells.csv").is_file() else "exact.csv") in linked
    guide = (folder / "tables" / "README.md").read_text()
    for name in linked:
        with (folder / "tables" / name).open(newline="") as file:
            headings, *rows = csv.reader(file)
        assert rows and all(len(row) == len(headings) for row in rows) and len(set(headings)) == len(headings)
        assert f"## {name}" in guide
        for low in (heading for heading in headings if " low" in heading):
            i, j = headings.index(low), headings.index(low.replace(" low", " high"))
            assert all(float(row[i]) <= float(row[j]) for row in rows if row[i] and row[j])


def test_a_row_of_every_arm_that_was_trained_is_in_its_table(folder):
    path = folder / "tables" / "arms.csv"
    if path.is_file():
        with path.open(newline="") as file:
            arms = [row["arm"] for row in csv.DictReader(file)]
        study = STUDIES[folder.name]
        assert arms == [arm.name for arm in study.arms if not arm.frozen]


def test_a_report_is_made_of_its_csv_alone(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///none.db")
    results = load(tuned(STUDIES[QUICK], False), False)
    tables = study_report.made(results)
    captions = dict.fromkeys(re.findall(r"\((\w+\.png)\)", (FOLDER / QUICK / "report.md").read_text()), "")
    text = re.sub(r"(?<=\.png\)\n\n).*\n\n", "\n\n", (FOLDER / QUICK / "report.md").read_text())
    assert page.markdown(results, tables, captions).split() == text.split()
    for table in tables:
        with (FOLDER / QUICK / "tables" / f"{table.name}.csv").open(newline="") as file:
            assert list(csv.reader(file)) == table.csv()
