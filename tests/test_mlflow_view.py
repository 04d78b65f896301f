"""A study in MLflow's UI: colours of the figures, a description, and a view that opens on what the study is about."""

import base64
import json
import re
import time
import zlib
from collections import defaultdict

import pytest
from mlflow.entities import Metric

from ablations.__main__ import main
from ablations.arm_colours import colours, label
from ablations.grid import cells
from ablations.records.experiment import ARM, KIND, Tracking
from ablations.records.study_results import FOLDER
from ablations.report.mlflow_view import SEEDS, distinct, publish, view
from ablations.studies import STUDIES
from ablations.study import Arm, Study

STUDY = STUDIES["quickstart"]
METRICS = ("val/accuracy", "train/reward", "tokens/generated", "test/accuracy", "time/fit", "diagnostic/flag/x", "a")


@pytest.fixture
def tracking():
    """The experiment of a study of which two seeds are finished and one has failed."""
    tracking = Tracking(STUDY.name)
    for cell in cells(STUDY, range(3)):
        run_id = tracking.open_cell(cell, {})
        tracking.client.set_terminated(run_id, "FAILED" if cell.seed == 2 else "FINISHED")
    for arm in STUDY.arm_names:
        run = tracking.client.create_run(tracking.experiment, run_name=arm, tags={KIND: "arm", ARM: arm})
        points = [Metric(name, 0.5, int(1000 * time.time()), step) for name in METRICS for step in (1, 2)]
        tracking.client.log_batch(run.info.run_id, points)
    return tracking


def opened(experiment, key):
    """The state of a view, decoded as MLflow does."""
    saved = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    assert saved["name"] and saved["createdAt"] and saved["state"].startswith("deflate;")
    return json.loads(zlib.decompress(base64.b64decode(saved["state"].removeprefix("deflate;"))))


def test_ui_opens_a_view_of_the_arms_in_the_colours_of_the_figures(tracking, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("os.execv", lambda *command: None)  # MLflow's server
    Tracking("another")
    assert main(["ui", "--port", "5017"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    address = lines[STUDY.name]
    assert address.startswith(f"http://127.0.0.1:5017/#/experiments/{tracking.experiment}/runs?")
    assert lines.keys() == {STUDY.name, "another"} and "viewStateShareKey" not in lines["another"]
    state = opened(tracking.client.get_experiment(tracking.experiment), re.search("viewStateShareKey=(.*)", address)[1])

    shown = tracking.client.search_runs([tracking.experiment], state["searchFilter"])
    assert {run.info.run_name: run.data.tags["mlflow.runColor"] for run in shown} == colours(STUDY)
    assert {run.data.tags[SEEDS] for run in shown} == {"2"}

    first, *others = state["compareRunCharts"]
    assert (first["metricKey"], first["xAxisKey"]) == ("val/accuracy", "metric")
    assert first["selectedXAxisMetricKey"] == "tokens/generated"
    sections = {each["uuid"]: each for each in state["compareRunSections"]}
    assert {each["metricSectionId"] for each in (first, *others)} == {state["compareRunSections"][0]["uuid"]}
    assert [each["name"] for each in sections.values() if each["display"]] == ["Study"]
    assert {*(chart["metricKey"] for chart in others), "tokens/generated"} <= set(METRICS)
    columns = dict(re.fullmatch("(.*)s.`(.*)`", each).group(2, 1) for each in state["selectedColumns"])
    kinds = {name: "metric" for name in ("test/accuracy", "tokens/generated", "time/fit")}
    assert columns == {**kinds, SEEDS: "tag"}


def test_the_description_has_question_answer_and_report_and_a_users_own_stays(tracking):
    def note():
        return tracking.client.get_experiment(tracking.experiment).tags["mlflow.note.content"]

    publish(STUDY, False)
    assert STUDY.question in note() and "report" not in note().lower()
    folder = FOLDER / STUDY.name
    folder.mkdir(parents=True)
    found = {"comparison": "RLOO against GRPO", "difference": "+1.5 [1, 2]", "found": "above"}
    (folder / "summary.json").write_text(json.dumps({"answer": "RLOO is better.", "comparisons": [found]}))
    (folder / "report.md").write_text("# The report")
    publish(STUDY, False)
    for part in (STUDY.question, "RLOO is better.", *found.values(), (folder / "report.md").resolve().as_uri()):
        assert part in note()
    tracking.client.set_experiment_tag(tracking.experiment, "mlflow.note.content", "mine")
    publish(STUDY, False)
    assert note() == "mine"


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_each_arm_of_a_task_has_a_colour_of_its_own_and_most_have_the_figures(study):
    labels = defaultdict(set)
    for arm, colour in distinct(study).items():
        assert re.fullmatch("#[0-9A-F]{6}", colour)
        labels[colour].add(label(study, arm))
    assert all(len(each) == 1 for each in labels.values())
    figures = colours(study)
    assert set(figures.values()) <= set(distinct(study).values())


def test_an_arm_with_a_name_of_its_own_has_no_colour_of_an_algorithm_beside_it():
    names = ("GRPO", "TRePO", "mine", "another", "a third")
    study = Study(name="own", question="?", arms=tuple(Arm(name, {}) for name in names), seeds=(0,))
    assert len(set(colours(study).values())) == len(names)


def test_a_view_of_arms_that_are_not_trained_shows_their_gradients_alone():
    charts = view({"gradient/trace_cov", "credit/noise/0"})["compareRunCharts"]
    assert [chart["metricKey"] for chart in charts] == ["gradient/trace_cov"]
    assert view(())["compareRunCharts"] == []
