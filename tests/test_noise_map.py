"""The map of estimators: rows, points and intervals from made-up cells; and what the study calls unbiased."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_cells import SEEDS, cell

from ablations.analysis import comparisons, secondary_differences
from ablations.analysis.verdicts import verdicts
from ablations.metric_names import NOISE, SECONDS
from ablations.records.cell_result import CellResult
from ablations.records.study_results import StudyResults
from ablations.report import answer_figure, noise_map
from ablations.studies.estimators import LEARNERS, STUDY, WORDS
from ablations.study import Arm, Comparison, Study

RESPONSES, PROMPTS = 4, 10
# noise of a group, and its generated tokens, by task
MADE = {
    "RLOO": {"x": (4.0, 32), "y": (1.0, 32)},
    "costly": {"x": (2.0, 96), "y": (0.5, 96)},
    "quiet": {"x": (1.0, 32), "y": (0.5, 32)},
}
CERTIFIED = {
    "REINFORCE": "REINFORCE",
    "RLOO": "RLOO G=3",
    "ReMax": "ReMax",
    "P3O": "P3O",
    "OptimalBaseline": "OptimalBaseline G=3",
    "OptimalBaseline per token": "OptimalBaseline per token, G=3",
    "OptimalBaseline per prefix": "OptimalBaseline per prefix, G=3",
    "PPO": "PPO",
    "PPO, pretrained": "PPO",
    "TRePO": "TRePO segment_td",
    "TRePO, paid root": "TRePO as VinePPO, G=1",
    "TRePO, reuse": "TRePO segment_td, reuse",
}


@pytest.fixture
def results() -> StudyResults:
    """Two tasks; ``costly`` has half of RLOO's noise for three times the tokens, ``quiet`` a quarter or half for as
    many; and one arm that was trained."""
    arms, cells = [], []
    for task in "xy":
        for name, known in MADE.items():
            arm = f"{task} {name}"
            config = {"model": {"init_args": {"samples": RESPONSES}}, "data": {"prompts_per_iteration": PROMPTS}}
            arms.append(Arm(arm, config, f"{task} RLOO", frozen=True, task=task))
            trace, tokens = known[task]
            for seed in SEEDS:
                curves = {
                    "gradient/trace_cov": dict.fromkeys((1, 2), trace * math.exp(0.02 * (seed % len(name)))),
                    "tokens/generated": {step: float(PROMPTS * tokens * step) for step in range(3)},
                    SECONDS: {step: 2.0 * step for step in range(3)},
                }
                cells.append(CellResult(arm, seed, 2, "commit", "hash", f"{arm}{seed}", {}, curves))
    for name, accuracy in (("first", 0.5), ("second", 0.6)):
        arms.append(Arm(f"x {name}", {}, "x first", task="x"))
        cells += [cell(f"x {name}", seed, accuracy + 0.01 * (seed % 4)) for seed in SEEDS]
    pairs = (
        Comparison(("x quiet", "y quiet"), ("x RLOO", "y RLOO"), "below", "it was made so", "quiet against RLOO"),
        Comparison(("x second",), ("x first",), "above", metric="test/accuracy_sampled"),
    )
    beside = ("over_tokens/val/accuracy_sampled",)
    study = Study("s", "?", "here", tuple(arms), "x RLOO", f"{NOISE}token", pairs, beside=beside)
    return StudyResults(study, False, tuple(cells), 0)


def test_rows_go_from_the_least_noise_and_points_are_factors_of_the_baseline_s(results):
    figure, caption = answer_figure.draw(results)
    assert "relative to RLOO's" in caption
    panels = [ax for ax in figure.axes if ax.lines]
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["quiet", "costly"]
    tokens = {"costly": 3, "quiet": 1}
    for ax, times in zip(panels, (dict.fromkeys(tokens, 1), tokens, dict.fromkeys(tokens, 1)), strict=True):
        points = {(line.get_label(), round(line.get_ydata()[0])): line for line in ax.lines if line.get_marker() == "o"}
        assert len(points) == 4
        for y, name in enumerate(("quiet", "costly")):
            for task in "xy":
                factor = MADE[name][task][0] / MADE["RLOO"][task][0] * times[name]
                assert points[task, y].get_xdata()[0] == pytest.approx(factor, rel=0.1)
        bars = [
            line.get_xdata() for line in ax.lines if line.get_marker() == "None" and len(set(line.get_ydata())) == 1
        ]
        assert len(bars) == 4 and all(low < high for low, high in bars)


def test_other_studies_have_no_map(results):
    for changed in ({"primary_metric": "test/accuracy"}, {"kappas": (1.0,)}):
        assert not noise_map.mapped(replace(results, study=replace(results.study, **changed)))
    trained = tuple(each for each in results.cells if not results.study.arm(each.arm).frozen)
    assert noise_map.mapped(results) and not noise_map.mapped(replace(results, cells=trained))


def test_noise_and_accuracy_stand_in_one_table_each_in_its_unit(results):
    found = verdicts(results, results.study.comparisons)
    lines = comparisons.shown(found, beside=secondary_differences.columns(results)).splitlines()[2:]
    noise, learning = ([field.strip() for field in line.split("|")] for line in lines)
    assert noise[2].startswith("x0.3") and noise[3] == "" and learning[2].startswith("+10.0") and learning[3]
    assert "or of factors the first over the second" in comparisons.legend(found, "planned comparisons")
    assert "or of factors" not in comparisons.legend(found[:1], "planned comparisons")


def test_all_frozen_estimators_of_the_study_are_certified_unbiased():
    rows = json.loads((Path(__file__).parents[1] / "results/certificate/certificate.json").read_text())
    unbiased = {row["estimator"] for row in rows if row["expected"] == "unbiased" and row["holds"]}
    frozen = {arm.name.removeprefix(arm.task).strip() for arm in STUDY.arms if arm.frozen}
    assert frozen == CERTIFIED.keys() and {*CERTIFIED.values()} <= unbiased
    assert LEARNERS.keys() <= frozen


def test_learners_have_as_many_prompts_and_responses_continuations_apart():
    """A continuation of a cut at 16 of about 45 tokens is two thirds of a response, and one at 32 less than a third."""
    for name, algorithm in LEARNERS.items():
        paid = {"ReMax": 1, "TRePO": 2}.get(name, 0)  # the greedy response; as much as the two responses themselves
        assert algorithm.prompts == 8 and algorithm.arguments["samples"] + paid == 4
    batches = {arm.name: arm.config["data"]["rows_per_microbatch"] for arm in STUDY.arms if arm.tuned_as}
    assert batches[f"{WORDS} TRePO, trained"] == 16 and batches[f"{WORDS} RLOO, trained"] == 32  # one step an update
