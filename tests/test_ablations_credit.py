"""The tables and maps of credit, from made-up curves."""

import dataclasses
import math

import pytest

from ablations.analysis import arm_table, comparisons, credit
from ablations.records.cell_result import CellResult
from ablations.records.study_results import CURVES, StudyResults
from ablations.report import figures
from ablations.study import Arm, Comparison, Study


def cell(arm, seed, share, exact=(0.0, 1.0), correlation=(math.nan, 0.5)):
    """Two iterations, the second at the optimum, where nothing is left to earn."""
    curves = {name: {1: 0.5, 2: 1.0} for name in CURVES}
    for t in range(2):
        curves[f"credit/share/{t}"] = {1: share[t], 2: 0.5}
        curves[f"credit/exact/{t}"] = {1: exact[t], 2: 0.5}
        if correlation[t] == correlation[t]:
            curves[f"credit/correlation/{t}"] = {1: correlation[t]}
    metrics = {"test/accuracy": 1.0, "test/accuracy_sampled": 0.9, "tokens/generated": 10.0, "time/fit": 1.0}
    return CellResult(arm, seed, 2, "commit", "hash", f"{arm}{seed}", metrics, curves)


@pytest.fixture
def results():
    arms = (Arm("a RLOO", {}), Arm("a GRPO", {}, "a RLOO"), Arm("b RLOO", {}, "b RLOO"), Arm("b GRPO", {}, "b RLOO"))
    study = Study("s", "?", "here", arms, "a RLOO", "test/accuracy_sampled", ())
    shares = {"a RLOO": (0.0, 1.0), "a GRPO": (0.5, 0.5), "b RLOO": (1.0, 0.0), "b GRPO": (0.25, 0.75)}
    return StudyResults(
        study, False, tuple(cell(arm, seed, share) for arm, share in shares.items() for seed in (0, 1)), 0
    )


def test_distance_is_the_total_variation_where_there_was_something_to_earn(results):
    found = {arm: credit.distance(results.of(arm)[0]) for arm in credit.arms(results)}
    assert found == pytest.approx({"a RLOO": 0.0, "a GRPO": 0.5, "b RLOO": 1.0, "b GRPO": 0.25})


def test_correlation_counts_positions_by_their_exact_share(results):
    assert credit.correlation(results.cells[0]) == pytest.approx(0.5)
    mixed = cell("a RLOO", 0, (0.0, 1.0), exact=(0.25, 0.75), correlation=(1.0, 0.0))
    assert credit.correlation(mixed) == pytest.approx(0.25)
    assert math.isnan(credit.correlation(cell("a RLOO", 0, (0.0, 1.0), correlation=(math.nan, math.nan))))


def test_shares_are_means_over_the_seeds_that_have_a_gradient(results):
    assert credit.shares(results, "a GRPO", "share") == {1: [0.5, 0.5], 2: [0.5, 0.5]}
    study, still = results.study, cell("a RLOO", 0, (0.0, 0.0))
    part = StudyResults(study, False, (still, cell("a RLOO", 1, (0.2, 0.8))), 0)
    assert credit.shares(part, "a RLOO", "share")[1] == [0.2, 0.8]
    none = credit.shares(StudyResults(study, False, (still,), 0), "a RLOO", "share")
    assert list(none) == [1, 2] and all(map(math.isnan, none[1])) and none[2] == [0.5, 0.5]


def test_gains_are_against_the_arm_s_own_baseline(results):
    assert results.groups == {"a RLOO": ["a RLOO", "a GRPO"], "b RLOO": ["b RLOO", "b GRPO"]}
    _, *rows = arm_table.table(results).shown((arm_table.ARM, arm_table.GAIN))
    assert dict(rows) == {"a RLOO": "", "a GRPO": "0.0", "b RLOO": "", "b GRPO": "0.0"}


def test_an_answer_names_whom_an_arm_is_compared_with(results):
    pairs = (Comparison(("a GRPO",), ("a RLOO",)), Comparison(("b GRPO",), ("b RLOO",)))
    said = comparisons.answer(dataclasses.replace(results, study=dataclasses.replace(results.study, comparisons=pairs)))
    assert "a GRPO against a RLOO" in said and "b GRPO against b RLOO" in said and said.count(". ") < 2


def test_table_and_figure_cover_every_measured_arm(results, tmp_path):
    headings, *rows = credit.table(results).csv()
    arms = [row[headings.index("arm")] for row in rows]
    assert arms == list(results.study.arm_names) and "distance from exact shares low" in headings
    drawn = figures.draw(results, tmp_path)
    assert any(name.startswith("credit") for name in drawn)
    assert (tmp_path / "credit.png").stat().st_size > 5000 and (tmp_path / "credit.svg").is_file()


def test_a_study_without_credit_has_no_map(results, tmp_path):
    bare = []
    for each in results.cells:
        curves = {name: curve for name, curve in each.curves.items() if not name.startswith("credit/")}
        bare.append(CellResult(each.arm, each.seed, 2, "commit", "hash", each.run_id, each.metrics, curves))
    plain = StudyResults(results.study, False, tuple(bare), 0)
    assert not credit.table(plain).rows and not any("credit" in name for name in figures.draw(plain, tmp_path))
