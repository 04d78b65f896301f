"""How a study looks in MLflow's UI: the colours of its arms, what it asks and finds, and a view that opens first.

The view is one of those that MLflow's own button saves: a tag of the experiment, which an address names.
"""

import base64
import json
import zlib
from collections.abc import Collection
from typing import Any

from ablations.arm_colours import colours, label
from ablations.grid import find
from ablations.records.experiment import ARM, KIND, Tracking, identity
from ablations.records.study_results import FOLDER
from ablations.report.overview import SUMMARY
from ablations.study import Study
from lit_rl.tracking.patience import shown

COLOUR, NOTE, VIEW = "mlflow.runColor", "mlflow.note.content", "mlflow.sharedViewState."  # tags of MLflow
SEEDS = "lit_rl.seeds"  # a tag: over how many finished seeds an arm's curves are means
KEY = "study"  # of the view
NAME = "Accuracy against generated tokens"
ARMS = f"tags.`{KIND}` = 'arm'"  # which runs are shown
TOKENS = "tokens/generated"
CURVES = ("val/accuracy", "val/accuracy_sampled", "train/reward")  # against generated tokens
BARS = ("test/accuracy", "test/accuracy_sampled", "time/fit")
OF_FROZEN = ("gradient/relative_variance", "gradient/trace_cov")  # bars of arms that are not trained
COLUMNS = ("test/accuracy", TOKENS, "time/fit")
LIGHTEST = 8  # times lighter
MOST = 5000  # characters of an experiment's tag; MLflow takes no longer one


def publish(study: Study, smoke: bool) -> None:
    """Writes tags of the study's experiment and of its arms' runs, where they are not there yet.

    Raises:
        UsageError: MLflow can't be used.
    """
    tracking = Tracking(study.label(smoke))
    newest = {run.data.tags[ARM]: run for run in reversed(tracking.runs("arm"))}
    arms = {name: run for name, run in newest.items() if name in study.arm_names}
    done = [identity(run) for run in tracking.finished_cells().values()]
    seeds = {
        arm: {seed for own, seed, digest in done if own == arm and find(study, own, seed, digest, smoke)}
        for arm in arms
    }
    shades = distinct(study)
    for arm, run in arms.items():
        for key, value in ((COLOUR, shades[arm]), (SEEDS, str(len(seeds[arm])))):
            if run.data.tags.get(key) != value:
                tracking.client.set_tag(run.info.run_id, key, value)
    experiment = tracking.client.get_experiment(tracking.experiment)
    metrics = {name for run in arms.values() for name in run.data.metrics}
    tags = {VIEW + KEY: _packed(view(metrics), experiment.creation_time)}
    if experiment.tags.get(NOTE, _title(study)).startswith(_title(study)):  # not one of a user's
        tags[NOTE] = description(study, smoke)
    for key, value in tags.items():
        if experiment.tags.get(key) != value and len(value) <= MOST:
            tracking.client.set_experiment_tag(tracking.experiment, key, value)


def distinct(study: Study) -> dict[str, str]:
    """By arm, the figures' colours; a lighter one where another arm of the task has it and the figure's line is broken,
    for MLflow breaks no lines."""
    labels: dict[str, str] = {}  # by colour
    found = {}
    for arm, colour in colours(study).items():
        own = label(study, arm)
        for _ in range(LIGHTEST):
            if labels.setdefault(colour, own) == own:
                break
            colour = _lighter(colour)
        found[arm] = colour
    return found


def _lighter(colour: str) -> str:
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{part + (255 - part) // 4:02X}" for part in parts)


def address(server: str, experiment: Any) -> str:
    """Where a browser finds an experiment: its saved view, if it has one."""
    shared = f"&viewStateShareKey={KEY}" if VIEW + KEY in experiment.tags else ""
    return f"{shown(server.rstrip('/'))}/#/experiments/{experiment.experiment_id}/runs?compareRunsMode=CHART{shared}"


def description(study: Study, smoke: bool) -> str:
    """In Markdown: the question, and once there is a report, the answer and where it is."""
    folder = FOLDER / study.label(smoke)
    parts = [_title(study)]
    if smoke:
        parts.append("A smoke run at tiny sizes: its numbers mean nothing.")
    if (folder / SUMMARY).is_file():
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        parts.append(summary["answer"])
        parts.append(
            "\n".join(f"- {row['comparison']}: {row['difference']}, {row['found']}" for row in summary["comparisons"])
        )
    if (report := folder / "report.md").is_file():
        parts.append(f"Report: [{report}]({report.resolve().as_uri()})")
    return "\n\n".join(parts)


def _title(study: Study) -> str:
    return f"**{study.question}**"


def view(metrics: Collection[str]) -> dict[str, Any]:
    """The state of MLflow's page of runs: the arms alone, what their table shows, and which charts stand first.

    Args:
        metrics: that the arms have. Nothing is shown of others; charts of the rest stay below, closed.
    """
    first = _section(0, "Study", True)
    curves = [_curve(metric) for metric in CURVES if {metric, TOKENS} <= set(metrics)]
    bars = [_chart("BAR", metric) for metric in (BARS if curves else OF_FROZEN) if metric in metrics]
    others = sorted({metric.rpartition("/")[0] or "Model metrics" for metric in metrics})
    return {
        "searchFilter": ARMS,
        "selectedColumns": [*(f"metrics.`{name}`" for name in COLUMNS if name in metrics), f"tags.`{SEEDS}`"],
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "compareRunCharts": [{**chart, "metricSectionId": first["uuid"]} for chart in (*curves, *bars)],
        "compareRunSections": [first, *(_section(1 + i, name, False) for i, name in enumerate(others))],
        "isAccordionReordered": True,  # otherwise sections are in the order of their names
    }


def _curve(metric: str) -> dict[str, Any]:
    axis = {"xAxisKey": "metric", "selectedXAxisMetricKey": TOKENS, "useGlobalXaxisKey": False}
    return {**_chart("LINE", metric), **axis, "lineSmoothness": 0, "useGlobalLineSmoothing": True}


def _chart(kind: str, metric: str) -> dict[str, Any]:
    shown = {"metricKey": metric, "selectedMetricKeys": [metric], "runsCountToCompare": 100}
    return {"type": kind, "uuid": f"{kind} {metric}", "deleted": False, "isGenerated": False, **shown}


def _section(number: int, name: str, own: bool) -> dict[str, Any]:
    """One of MLflow's own is closed."""
    common = {"uuid": f"section-{number}", "name": name, "isReordered": False, "deleted": False}
    return {**common, "display": own, "isGenerated": not own, "columns": 2 if own else 3}


def _packed(state: dict[str, Any], milliseconds: int) -> str:
    """As MLflow saves it, with the time at which that is said to have been."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    saved = {"name": NAME, "createdAt": milliseconds, "updatedAt": milliseconds, "state": f"deflate;{packed}"}
    return json.dumps(saved)
