"""Planned comparisons, frozen noise and the tables of results, from made-up cells."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up_cells import PAIRS, SEEDS, cell, made_up, records
from scipy import stats

import ablations.analysis.statistics as st
from ablations.analysis import arm_table, comparisons, gradient_noise, metric_text, secondary_differences
from ablations.analysis.tables import Column, Table
from ablations.analysis.verdicts import ALPHA, verdicts
from ablations.metric_names import OVER_TOKENS, SECONDS
from ablations.records.cell_result import CellResult, mean_to
from ablations.records.study_results import StudyResults
from ablations.report.page import limits
from ablations.study import Arm, Comparison, Reading, Study


@pytest.fixture
def results():
    return made_up()


def test_verdicts_are_paired_and_their_p_adjusted_together(results):
    found = verdicts(results, PAIRS)
    assert [each.found for each in found] == ["above", "equal", "above"]
    x_a, x_b = (np.array(list(results.by_seed(arm, "test/accuracy_sampled").values())) for arm in ("x a", "x b"))
    known = stats.permutation_test((x_b - x_a,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found[0].p == pytest.approx(known.pvalue) and found[0].interval.mean == pytest.approx((x_b - x_a).mean())
    assert found[0].adjusted >= found[0].p and max(each.adjusted for each in found) <= 1
    y_a, y_b = (np.array(list(results.by_seed(arm, "test/accuracy_sampled").values())) for arm in ("y a", "y b"))
    assert found[2].differences == pytest.approx((x_b + y_b - x_a - y_a) / 2)


def test_an_arm_without_cells_is_compared_with_nobody(results):
    without = StudyResults(results.study, False, tuple(c for c in results.cells if c.arm != "y b"), 0)
    assert len(verdicts(without, PAIRS)) == 2


def test_a_pilot_is_judged_by_its_interval(results):
    few = StudyResults(results.study, False, tuple(c for c in results.cells if c.seed < 3), 0)
    first = verdicts(few, PAIRS)[0]
    assert first.p >= 0.25 and first.found == ("above" if first.interval.low > 0 else "unresolved")


def test_arms_that_agree_in_every_seed_are_pointed_out(results):
    assert not any("equal in every seed" in each for each in limits(results))
    level = {"x a": 0.25, "x b": 0.5}
    same = [replace(c, metrics=c.metrics | {"test/accuracy_sampled": level.get(c.arm, 0.25)}) for c in results.cells]
    told = [each for each in limits(replace(results, cells=tuple(same))) if "equal in every seed" in each]
    assert len(told) == 1 and told[0].startswith("x c against x a")


def test_answer_and_tables_name_every_comparison(results):
    said = comparisons.answer(results)
    assert "b against a, all tasks" in said and "x c" in said
    found = verdicts(results, PAIRS)
    assert comparisons.shown(found).count("| above |") >= 2 and "it was made so" in comparisons.reasons(found)[0]
    table = records(comparisons.table(results))
    assert [row["comparison"] for row in table] == [str(pair) for pair in PAIRS]
    for row, each in zip(table, found, strict=True):
        mean, low, high = (float(row[f"difference{which}"]) for which in ("", " low", " high"))
        assert (mean, low, high) == pytest.approx([100 * x for x in each.interval], abs=0.05)
        assert row["kind"] == "planned" and row["unit"] == "points" and row["found"] == each.found


def test_each_arm_has_a_row_with_its_task_and_its_gain(results):
    rows = records(arm_table.table(results))
    assert [row["arm"] for row in rows] == list(results.study.arm_names) and {row["task"] for row in rows} == {"x", "y"}
    for row in rows:
        gain = arm_table.gain(results, row["arm"])
        known = f"{100 * gain.mean:.1f}" if row["arm"] != results.study.baseline_of(row["arm"]) else ""
        assert row["gain in sampled test accuracy (points)"] == known


def test_the_mean_over_tokens_is_the_area_below_the_curve(results):
    rng = np.random.default_rng(1)
    places, values = np.sort(rng.uniform(0, 10, 6)), rng.uniform(size=6)
    curve = dict(zip(places.tolist(), values.tolist(), strict=True))
    for end in (places[-1], (places[2] + places[3]) / 2, places[-1] + 3):
        grid = np.linspace(places[0], end, 200_001)
        known = np.trapezoid(np.interp(grid, places, values), grid) / (end - places[0])
        assert mean_to(curve, end) == pytest.approx(known, abs=1e-6)
    first = results.cells[0]
    value = results.value(first, f"{OVER_TOKENS}val/accuracy_sampled")
    assert value == pytest.approx(first.metrics["test/accuracy_sampled"] / 2 + 0.25)


def noisy(name: str, trace: float, signal: float, samples: int, tokens: float) -> tuple[Arm, list[CellResult]]:
    config = {"model": {"init_args": {"samples": samples}}, "data": {"prompts_per_iteration": 10}}
    rng = np.random.default_rng(5)
    cells = []
    for seed in SEEDS:
        jitter = float(np.exp(rng.normal(0, 0.05)))
        curves = {
            "gradient/trace_cov": dict.fromkeys((1, 2, 3), 2 * trace * jitter),
            "credit/norm_sq": dict.fromkeys((1, 2, 3), 2.0),
            "credit/signal": {step: signal + rng.normal(0, 0.01) for step in (1, 2, 3)},
            "tokens/generated": {step: 10.0 * tokens * step for step in range(4)},
            SECONDS: {step: 2.0 * step for step in range(4)},
        }
        cells.append(CellResult(name, seed, 3, "commit", "hash", "id", {}, curves))
    return Arm(name, config, "RLOO", frozen=True), cells


def test_noise_at_equal_cost():
    base, base_cells = noisy("RLOO, frozen", 4.0, 1.0, samples=4, tokens=32)
    half, half_cells = noisy("half, frozen", 4.0, 0.5, samples=4, tokens=32)  # shrunk signal: four times the noise
    dear, dear_cells = noisy("dear, frozen", 2.0, 1.0, samples=4, tokens=96)  # half the noise at three times the price
    none, none_cells = noisy("none, frozen", 1.0, 0.0, samples=4, tokens=32)
    arms = (Arm("RLOO", {}), base, half, dear, none)
    cells = tuple([*base_cells, *half_cells, *dear_cells, *none_cells])
    results = StudyResults(Study("s", "?", "here", arms, "RLOO", "test/accuracy", ()), False, cells, 0)
    assert gradient_noise.arms(results) == ["RLOO, frozen", "half, frozen", "dear, frozen", "none, frozen"]
    measured = {arm: gradient_noise.measured(results, arm) for arm in gradient_noise.arms(results)}
    expected = {("half", "token"): 4, ("dear", "response"): 0.5, ("dear", "token"): 1.5, ("dear", "second"): 0.5}
    for (name, cost), ratio in expected.items():
        found = gradient_noise.relative(measured[f"{name}, frozen"], measured["RLOO, frozen"], cost)
        assert found.mean == pytest.approx(ratio, rel=0.05) and found.low < found.mean < found.high
    assert math.isnan(gradient_noise.relative(measured["none, frozen"], measured["RLOO, frozen"], "token").mean)
    rows = records(gradient_noise.table(results))
    assert [row["arm"] for row in rows] == [base.name, half.name, dear.name, none.name]
    assert rows[0]["noise per token"] == "1.00" and rows[-1]["noise per token"] == ""  # it is unresolved


def test_beside_a_pooled_mean_stand_its_tasks_and_beside_a_budget_its_end(results):
    found = records(secondary_differences.table(results))
    x, y = (
        metric_text.number(verdicts(results, [pair])[0].interval.mean, "test/accuracy_sampled")
        for pair in (PAIRS[0], Comparison(("y b",), ("y a",)))
    )
    told = [(row["comparison"], row["task"], row["difference"]) for row in found]
    assert told == [("b against a, all tasks", "x", x), ("b against a, all tasks", "y", y)]
    over = replace(results.study, primary_metric=f"{OVER_TOKENS}val/accuracy_sampled", comparisons=PAIRS[:1])
    [end] = records(secondary_differences.table(replace(results, study=over)))
    assert (end["comparison"], end["difference"]) == ("x b against x a", x) and "at the end" in end["metric"]
    alone = replace(results.study, comparisons=PAIRS[:1])
    assert not secondary_differences.table(replace(results, study=alone)).rows


def test_further_metrics_stand_beside_the_difference_that_decides(results):
    over = f"{OVER_TOKENS}val/accuracy_sampled"
    found = replace(results, study=replace(results.study, beside=(over, "test/accuracy_sampled")))
    columns = secondary_differences.columns(found)
    assert list(columns) == ["over the budget", "at the end"]
    page = comparisons.shown(verdicts(found, PAIRS), beside=columns).splitlines()
    assert page[0].startswith("| comparison | difference [95% interval] | over the budget | at the end |")
    pairs = [(found.mean_by_seed(each.arms, over), found.mean_by_seed(each.against, over)) for each in PAIRS]
    for line, (a, b) in zip(page[2:], pairs, strict=True):
        _, _, decides, budget, end, *_ = (field.strip() for field in line.split("|"))
        assert decides == end  # the same metric
        differences = [100 * (a[seed] - b[seed]) for seed in SEEDS]
        expected = (np.mean(differences), *stats.t.interval(0.95, 9, np.mean(differences), stats.sem(differences)))
        mean, low, high = (float(text) for text in budget.replace("[", "").replace("]", "").replace(",", "").split())
        assert (mean, low, high) == pytest.approx(expected, abs=0.051)
    rows = records(secondary_differences.table(found))
    assert [row["difference"] for row in rows if row["metric"].endswith("over the budget of generated tokens")]
    assert "over the budget" in secondary_differences.legend(found) and not secondary_differences.legend(results)


def test_a_reading_is_told_while_the_outcomes_are_those_it_was_written_for(results):
    planned, followed_up = ("above", "equal", "above"), PAIRS[1:2]
    cases = (
        (planned, (), True),
        (("above", "above", "above"), (), False),
        ((*planned, "equal"), followed_up, True),
        ((*planned, "below"), followed_up, False),
    )
    for outcomes, exploratory, told in cases:
        study = replace(results.study, reading=Reading("Two sentences.", outcomes), exploratory=exploratory)
        assert comparisons.answer(replace(results, study=study)).startswith("Two sentences.") == told


def test_a_table_has_a_field_for_each_limit_and_no_empty_column():
    whole = st.Interval(0.5, 0.25, 0.75)
    columns = Column("arm"), Column("gain", "points", ".1f", True), Column("never measured")
    table = Table("t", "Details", "", columns, [["a", whole, None], ["b", st.Interval(1.0, math.nan, math.nan), None]])
    headings = ["arm", "gain (points)", "gain low (points)", "gain high (points)"]
    assert table.csv() == [headings, ["a", "0.5", "0.2", "0.8"], ["b", "1.0", "", ""]]
    assert table.shown(("arm", "gain")) == [["arm", "gain (points)"], ["a", "0.5 [0.2, 0.8]"], ["b", "1.0"]]


def test_who_gets_there_behind_the_budget_gets_there_at_its_end(results):
    """Iterations end a little behind it; who needed the last one is no earlier than who never got there."""
    arm = Arm("x a", {"budget": {"generated_tokens": 190}}, "x a", task="x")
    study = Study("s", "?", "here", (arm,), "x a", "test/accuracy_sampled", ())
    never = {"val/accuracy_sampled": {0: 0.0, 1: 0.1, 2: 0.2}}
    late = [cell("x a", seed, 0.5) for seed in range(3)]  # there at 200 tokens
    some = StudyResults(study, False, tuple([*late, *(cell("x a", 3 + n, 0.5, never) for n in range(4))]), 0)
    most = StudyResults(study, False, tuple([*late, *(cell("x a", 3 + n, 0.5, never) for n in range(2))]), 0)
    names = "generated tokens until 90% (thousands)", "seeds that got there", "seeds"
    found = [records(arm_table.table(each))[0] for each in (some, most)]
    assert [tuple(row.get(name, "") for name in names) for row in found] == [("", "3", "7"), ("0.2", "3", "5")]


def test_the_fewest_seeds_are_those_with_which_the_tests_can_tell(results):
    made = verdicts(results, PAIRS[:1] * 6)
    six = replace(results, study=replace(results.study, comparisons=PAIRS[:1] * 6))
    needed = int(records(comparisons.table(six))[0]["seeds for power .8"])
    assert needed > made[0].seeds_needed and st.holm([st.sign_flip_p([1.0] * needed)] * 6)[0] < ALPHA
    assert st.holm([st.sign_flip_p([1.0] * (needed - 1))] * 6)[0] >= ALPHA
