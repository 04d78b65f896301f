"""Whole sweeps at tiny sizes, with real workers and a real database."""

import csv
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.artifacts import load_text

from ablations import grid, studies
from ablations.__main__ import main
from ablations.config import merge
from ablations.records.experiment import ARM, COMMIT, HASH, PARENT, SEED, SMOKE, STUDY, SWEEP, Tracking
from ablations.records.study_results import load
from ablations.study import Arm, Study, Tuning
from ablations.sweep.tuning import tuned
from lit_rl.errors import UsageError

TINY = {
    "model": {"class_path": "RLOO", "init_args": {"samples": 2, "max_new_tokens": 8}},
    "data": {"prompts_per_iteration": 2, "rows_per_microbatch": 2, "eval_prompts": 2},
    "trainer": {"max_epochs": 1, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
}
SIZES = {"vocabulary": 3, "length": 3}
TABLE = {"class_path": "lit_rl.policy.TabularPolicy", "init_args": SIZES}
BROKEN = {"class_path": "sweeping.BrokenPolicy", "init_args": SIZES}
KEY_TOKEN = {
    "model": {"class_path": "RLOO", "init_args": {"samples": 2, "policy": TABLE}},
    "data": {"task": {"class_path": "lit_rl.tasks.KeyToken", "init_args": SIZES}},
    "budget": {"generated_tokens": 36},
    "credit": {"every_n_iterations": 1},
}
QUICKSTART = ["run", "quickstart", "--smoke", "--jobs", "2", "--seeds", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield path


@pytest.fixture(autouse=True)
def away_from_the_repository(folder):
    """The tests of this module share a folder, and what one of them ran."""


@pytest.fixture(scope="module")
def sweep(folder):
    """The quickstart's tracking after a run that began with another process's unfinished cell."""
    study = studies.STUDIES["quickstart"]
    tracking = Tracking(study.label(smoke=True))
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    stale = tracking.open_cell(
        grid.cells(study, [0], smoke=True)[0], {SWEEP: f"{socket.gethostname()} {ended.stdout.strip()}"}
    )
    assert main(QUICKSTART) == 0
    return study, tracking, stale


def test_arms_are_parents_and_seeds_their_children(sweep):
    study, tracking, stale = sweep
    arms = {run.info.run_id: run for run in tracking.runs("arm")}
    cells = [run for run in tracking.runs("cell") if run.info.run_id != stale]
    planned = {cell.hash: cell for cell in grid.cells(study, [0], smoke=True)}
    assert sorted(run.data.tags[ARM] for run in arms.values()) == sorted(study.arm_names)
    assert {run.data.tags[HASH] for run in cells} == planned.keys() and len(cells) == len(planned)
    assert {run.info.status for run in [*arms.values(), *cells]} == {"FINISHED"}
    for run in cells:
        tags, cell = run.data.tags, planned[run.data.tags[HASH]]
        assert arms[tags[PARENT]].data.tags[ARM] == tags[ARM] == cell.arm
        assert (tags[SEED], tags[STUDY], tags[SMOKE]) == ("0", "quickstart", "true") and tags[COMMIT]
        assert run.data.params["model/class_path"].endswith(cell.config["model"]["class_path"])
        assert {"test/accuracy", "test/accuracy_sampled", "val/accuracy"} <= run.data.metrics.keys()
        steps = [point.step for point in tracking.client.get_metric_history(run.info.run_id, "val/accuracy")]
        assert steps == list(range(cell.config["trainer"]["max_epochs"] + 1))


def test_an_unfinished_cell_is_run_anew(sweep):
    _, tracking, stale = sweep
    assert tracking.client.get_run(stale).info.status == "KILLED"


def test_a_cell_that_another_process_runs_is_left_alone(sweep):
    study, tracking, _ = sweep
    for other in (f"{socket.gethostname()} {os.getppid()}", "elsewhere 1"):
        run_id = tracking.open_cell(grid.cells(study, [9], smoke=True)[0], {SWEEP: other})
        tracking.kill_stale(grid.cells(study, [9], smoke=True))
        assert tracking.client.get_run(run_id).info.status == "RUNNING"
        tracking.client.delete_run(run_id)


def test_nothing_finished_is_run_again(sweep, capsys):
    study, tracking, _ = sweep
    before = {run.info.run_id: run.info.end_time for run in tracking.runs("cell")}
    assert main(QUICKSTART) == 0
    assert f"{len(study.arms)} of {len(study.arms)} cells already finished" in capsys.readouterr().err
    assert {run.info.run_id: run.info.end_time for run in tracking.runs("cell")} == before


def test_the_report_says_what_mlflow_knows(sweep, folder, capsys):
    study, tracking, _ = sweep
    results = folder / "results" / "quickstart-smoke"
    assert main(["report", "quickstart", "--smoke"]) == 0
    assert "report.md" in capsys.readouterr().out
    with (results / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == list(study.arm_names)
    for row in rows:
        run = tracking.client.get_run(row["run_id"])
        assert float(row["test/accuracy_sampled"]) == run.data.metrics["test/accuracy_sampled"]
        assert (float(row["tokens/generated"]) > 0) == (row["arm"] not in ("warm_start", "supervised"))
    text = (results / "report.md").read_text()
    for wanted in (study.question, *study.notes, "pilot", "run quickstart --smoke"):
        assert wanted in text
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert [len(table) - 2 for table in tables] == [len(study.comparisons)]
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    generating = sum(float(row["tokens/generated"]) > 0 for row in rows)
    lengths = {"arms": len(study.arms), "time": generating, "comparisons": len(study.comparisons)}
    for name, length in lengths.items():
        assert f"(tables/{name}.csv)" in text
        with (results / "tables" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == length
    for name in ("answer", "accuracy", "test_accuracy", "gradient_variance"):
        assert f"({name}.png)" in text
        assert (results / f"{name}.png").stat().st_size and (results / f"{name}.svg").stat().st_size


def test_a_report_of_nothing_is_one_line(capsys):
    assert main(["report", "quickstart"]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1 and "python -m ablations run quickstart" in printed


def test_a_changed_study_has_no_results_yet(sweep):
    study, _, _ = sweep
    changed = dataclasses.replace(study, base=merge(study.base, {"model": {"init_args": {"temperature": 0.9}}}))
    with pytest.raises(UsageError, match="no finished cells"):
        load(changed, smoke=True)


def test_a_failing_cell_stops_no_other(folder: Path, monkeypatch, capsys):
    arms = (
        Arm("fine", {}),
        Arm("mistaken", {"data": {"rows_per_microbatch": 3}}),
        Arm("raising", KEY_TOKEN | {"model": {"init_args": {"policy": BROKEN, "max_new_tokens": 3}}}),
    )
    study = Study("broken", "?", "here", arms, "fine", "test/accuracy", (), base=TINY, seeds=(0,))
    monkeypatch.setitem(studies.STUDIES, study.name, study)
    assert main(["run", "broken", "--jobs", "2"]) == 1
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(printed) == 2
    assert any("mistaken" in line and "rows_per_microbatch" in line for line in printed)
    assert any("raising" in line and "RuntimeError: it broke" in line for line in printed)
    tracking = Tracking("broken")
    expected = {"fine": "FINISHED", "mistaken": "FAILED", "raising": "FAILED"}
    for kind in ("cell", "arm"):
        assert {run.data.tags[ARM]: run.info.status for run in tracking.runs(kind)} == expected
    raising = next(run for run in tracking.runs("cell") if run.data.tags[ARM] == "raising")
    assert "Traceback" in load_text(f"{raising.info.artifact_uri}/error.txt")
    assert len(load(study, smoke=False).cells) == 1


def test_an_arm_has_the_means_over_its_seeds_however_they_came(folder: Path, monkeypatch):
    study = Study("growing", "?", "here", (Arm("only", {}),), "only", "test/accuracy", (), base=TINY, seeds=(0,))
    monkeypatch.setitem(studies.STUDIES, study.name, study)
    tracking = Tracking("growing")
    for seeds in ("1", "2"):
        assert main(["run", "growing", "--seeds", seeds]) == 0
        (arm,), cells = tracking.runs("arm"), tracking.runs("cell")
        assert len(cells) == int(seeds) and {run.data.tags[PARENT] for run in cells} == {arm.info.run_id}
        for name in ("train/reward", "val/accuracy", "tokens/generated"):
            curves = [tracking.client.get_metric_history(run.info.run_id, name) for run in cells]
            mean = {point.step: point.value for point in tracking.client.get_metric_history(arm.info.run_id, name)}
            for points in zip(*curves, strict=True):
                assert mean[points[0].step] == pytest.approx(sum(point.value for point in points) / len(cells))


def test_a_report_without_the_database_is_the_same(sweep, folder, monkeypatch):
    results = folder / "results" / "quickstart-smoke"
    assert main(["report", "quickstart", "--smoke"]) == 0
    before = {path: path.read_bytes() for path in results.rglob("*.*")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/elsewhere.db")
    assert main(["report", "quickstart", "--smoke"]) == 0
    assert {path: path.read_bytes() for path in results.rglob("*.*")} == before
    assert not (folder / "elsewhere.db").exists()


def test_a_study_is_tuned_frozen_arms_are_measured_and_a_budget_ends_it(folder: Path, monkeypatch, capsys):
    """Twelve tokens an iteration: a budget of 36 is three of them."""
    frozen = {"model": {"init_args": {"learning_rate": 0.0}}, "budget": {"generated_tokens": None}}
    frozen |= {"trainer": {"max_epochs": 3}, "gradient_variance": {"every_n_iterations": 1}}
    study = Study(
        "keyed",
        "?",
        "here",
        (Arm("RLOO", KEY_TOKEN, tuned_as="RLOO"), Arm("RLOO, frozen", merge(KEY_TOKEN, frozen), "RLOO", frozen=True)),
        "RLOO",
        "over_tokens/val/accuracy_sampled",
        (),
        base=merge(TINY, {"model": {"init_args": {"max_new_tokens": 3}}, "trainer": {"max_epochs": 100}}),
        seeds=(0, 1),
        tuning=Tuning((1e-3, 1e-1), (100,)),
    )
    monkeypatch.setitem(studies.STUDIES, study.name, study)
    assert main(["run", "keyed", "--jobs", "2"]) == 0
    results = load(tuned(study, smoke=False), smoke=False)
    for cell in results.of("RLOO"):
        assert cell.iterations == 3 and cell.generated == 36
        assert set(cell.along("val/accuracy_sampled")) == {0, 12, 24, 36}
        assert list(cell.axis("steps").values()) == [0, 2, 4, 6]
        seconds = list(cell.axis("seconds").values())
        assert seconds == sorted(seconds) and seconds[-1] < cell.seconds
    for cell in results.of("RLOO, frozen"):
        assert len(cell.curves["gradient/trace_cov"]) == 3 and "test/accuracy" not in cell.metrics
        assert len(set(cell.curves["credit/objective"].values())) == 1  # nothing was learned
    text = (folder / "results" / "keyed" / "report.md").read_text()
    assert "## Learning rates" in text and "![surface](surface.png)" in text
    assert "is the lowest or highest" not in text  # nothing is compared
    assert (folder / "results" / "keyed" / "tables" / "choices.csv").read_text().startswith("arm,learning rate,edge")
    assert "the best of 0.001 and 0.1, on seed 100" in (folder / "results/keyed/tables/README.md").read_text()
    assert (folder / "results" / "keyed" / "tuning.csv").read_text().count("\n") == 3
    front = (folder / "results" / "README.md").read_text()
    assert "[Report](keyed/report.md)" in front and "`python -m ablations run keyed`" in front
    capsys.readouterr()
    assert main(["run", "keyed"]) == 0
    assert capsys.readouterr().err.splitlines() == ["2 of 2 cells already finished", "4 of 4 cells already finished"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/elsewhere.db")
    assert main(["report", "keyed"]) == 0
    assert (folder / "results" / "keyed" / "report.md").read_text() == text
    table = folder / "results" / "keyed" / "tuning.csv"
    trials = table.read_text()
    table.write_text("".join(trials.splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    assert main(["run", "keyed", "--jobs", "2"]) == 0  # goes on from the trials of another machine
    assert "1 of 2 cells already finished" in capsys.readouterr().err and table.read_text() == trials
