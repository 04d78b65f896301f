"""Exact rows: computed before the cells, kept in a CSV, of which the report is made; committed ones are today's."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from sweeping import STUDIES as TINY

from ablations.records import exact_rows
from ablations.report import study_report
from ablations.studies import STUDIES
from ablations.sweep.exact import compute
from ablations.sweep.runner import Tracking
from lit_rl.errors import UsageError

ROOT = Path(__file__).parents[1]
STUDY = replace(TINY["swept"], exact=f"{Path(__file__).stem}.rows")
COMMITTED = [key for key, study in STUDIES.items() if study.exact and (ROOT / "results" / key / "exact.csv").is_file()]


def rows(smoke):
    noises = [1.0, 1 / 3] if smoke else [1.0, 1 / 3, 1e6 / 7]
    judged = {"relative bias": 1e-16, "predicted bias": 0.0, "disagreement": 1e-16, "holds": "yes"}
    others = {"relative bias": 0.25, "predicted bias": "", "disagreement": "", "holds": ""}
    return [{"task": "swept", "n": float(n), **(others if n else judged), "noise": x} for n, x in enumerate(noises)]


def test_a_report_of_exact_rows_alone_is_made_of_the_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    compute(STUDY, False)
    kept = exact_rows.read(Path("results/swept"))
    assert [row["noise"] for row in kept] == ["1", "0.333333", "142857"] and kept[0]["relative bias"] == "0"
    tracking = Tracking("swept")
    [run] = tracking.runs("exact")
    assert [each.path for each in tracking.client.list_artifacts(run.info.run_id)] == [exact_rows.EXACT]
    text = study_report.report(STUDY, False).read_text()
    assert "Of 3 combinations enumerated without training, 1 of the 1 with a formula agree" in text
    assert "No cell has been trained yet" in text and "(tables/exact.csv)" in text
    table = Path("results/swept/tables/exact.csv").read_text().splitlines()
    assert table[0].startswith("task,n,relative bias,predicted bias,disagreement,holds,noise")
    assert table[2] == "swept,1,0.25,,,,0.3333"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    assert study_report.report(STUDY, False).read_text() == text


def test_a_mistyped_function_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("nowhere.rows", f"{Path(__file__).stem}.no_rows", "rows"):
        with pytest.raises(UsageError, match=f"^study swept: exact is '{path}' .*give the import path of a function"):
            compute(replace(STUDY, exact=path), True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", COMMITTED)
def test_committed_rows_are_what_is_computed_today(key):
    module, _, name = STUDIES[key].exact.rpartition(".")
    some = getattr(import_module(module), name)(True)
    kept = exact_rows.read(ROOT / "results" / key)
    assert some and all({name: exact_rows.text(x) for name, x in row.items()} in kept for row in some)
