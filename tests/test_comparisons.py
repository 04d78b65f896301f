"""Planned comparisons, frozen noise and the tables of results, from made-up cells."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import ablations.analysis.statistics as st
from ablations.analysis import arm_table, comparisons, gradient_noise, metric_text, secondary_differences
from ablations.analysis.tables import Column, Table
from ablations.analysis.verdicts import ALPHA, Verdict, verdicts
from ablations.metric_names import NOISE, OVER_TOKENS, SECONDS
from ablations.records.cell_result import CellResult, mean_to
from ablations.records.study_results import StudyResults
from ablations.report import answer_figure, overview
from ablations.report.page import limits
from ablations.study import Arm, Comparison, Reading, Study

SEEDS = range(10)
PAIRS = (
    Comparison(("x b",), ("x a",), "above", "it was made so"),
    Comparison(("x c",), ("x a",), "equal"),
    Comparison(("x b", "y b"), ("x a", "y a"), name="b against a, all tasks"),
)


def records(table: Table) -> list[dict[str, str]]:
    """A table as whoever reads its CSV has it."""
    headings, *rows = table.csv()
    return [dict(zip(headings, row, strict=True)) for row in rows]


def cell(arm: str, seed: int, accuracy: float, curves=None) -> CellResult:
    curves = {"val/accuracy_sampled": {0: 0.0, 1: accuracy, 2: 1.0}, **(curves or {})}
    curves |= {"tokens/generated": {0: 0.0, 1: 100.0, 2: 200.0}, SECONDS: {1: 1.0, 2: 2.5}}
    metrics = {"test/accuracy_sampled": accuracy, "tokens/generated": 200.0, "time/fit": 3.0}
    return CellResult(arm, seed, 2, "commit", "hash", f"{arm}{seed}", metrics, curves)


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    arms = tuple(Arm(f"{task} {name}", {}, f"{task} a", task=task) for task in "xy" for name in "abc")
    study = Study("s", "?", "here", arms, "x a", "test/accuracy_sampled", PAIRS)
    level = {"a": 0.5, "b": 0.6, "c": 0.5}
    cells = []
    for seed in SEEDS:
        shared = rng.normal(0, 0.1)  # paired away
        for arm in arms:
            own = rng.normal(0, 0.02)
            cells.append(cell(arm.name, seed, level[arm.name[-1]] + shared + own))
    return StudyResults(study, False, tuple(cells), 0)


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


def made(results, level: float, spread: float, predicted: str = "equal", seeds: int = 8, matters: float = 2.0):
    """The verdict on arms that differ by so much in the mean over seeds."""
    around = np.linspace(-1, 1, seeds) if seeds > 1 else np.zeros(1)
    level_of = {("x a", seed): 0.5 for seed in range(seeds)}
    level_of |= {("x b", seed): 0.5 + level + spread * x for seed, x in enumerate(around.tolist())}
    cells = tuple(cell(arm, seed, value) for (arm, seed), value in level_of.items())
    pair = Comparison.between("x b", "x a", predicted, matters=matters)
    [found] = verdicts(replace(results, cells=cells), (pair,))
    return found


def test_what_is_found_depends_on_what_matters(results):
    cases = (
        (0.0, 0.01, "equal"),
        (0.0, 0.05, "unresolved"),
        (0.01, 0.005, "equal"),  # a difference in every seed, too small to matter
        (0.05, 0.01, "above"),
        (-0.05, 0.01, "below"),
        (0.02, 0.0, "above"),  # what matters is no longer equal
    )
    for level, spread, told in cases:
        assert made(results, level, spread).found == told
    assert made(results, 0.01, 0.005, matters=0.5).found == "above"
    assert made(results, 0.05, 0.01, matters=10).found == "equal"
    for level, seeds, told in ((0.01, 8, "equal"), (0.01, 3, "unresolved"), (0.0, 2, "equal"), (0.0, 1, "unresolved")):
        assert made(results, level, 0.0, seeds=seeds).found == told  # without spread


def test_a_verdict_is_the_same_with_the_arms_exchanged(results):
    rng, opposite = np.random.default_rng(3), {"above": "below", "below": "above"}
    for _ in range(50):
        level, spread = rng.normal(0, 0.03), rng.exponential(0.03)
        one, other = made(results, level, spread), made(results, -level, spread)
        assert other.found == opposite.get(one.found, one.found)
        assert one.p_equivalence == pytest.approx(other.p_equivalence)


def test_a_factor_matters_as_much_upwards_as_downwards():
    rng = np.random.default_rng(4)
    for factor, told in ((1.05, "equal"), (0.95, "equal"), (1.6, "above"), (0.6, "below")):
        d = np.log(factor) + rng.normal(0, 0.02, 8)
        found = Verdict(Comparison(("a",), ("b",)), f"{NOISE}token", tuple(d), st.sign_flip_p(d), 0.01, 1.2)
        low, high = np.exp(st.mean_interval(d.tolist(), 0.9)[1:])
        assert found.found == told and (found.found == "equal") == (1 / 1.2 < low and high < 1.2)


@pytest.mark.parametrize(
    "predicted, level, spread, sound",
    [
        ("equal", 0.0, 0.01, True),
        ("equal", 0.0, 0.05, None),
        ("equal", 0.05, 0.01, False),
        ("not above", -0.3, 0.05, True),  # ruined
        ("not above", 0.0, 0.01, True),
        ("not above", -0.04, 0.08, True),  # neither below 0 nor equal, but less than 2 points above
        ("not above", 0.0, 0.05, None),
        ("not above", 0.05, 0.01, False),
        ("above", 0.0, 0.01, False),  # equal
        ("above", 0.0, 0.05, None),
        ("below", -0.05, 0.01, True),
    ],
)
def test_a_control_is_sound_failed_or_not_resolved(results, predicted, level, spread, sound):
    assert made(results, level, spread, predicted).as_predicted is sound


def test_who_must_not_be_above_is_tested_against_what_matters(results):
    """As by the one-sided interval of scipy."""
    rng = np.random.default_rng(6)
    seen = set()
    for _ in range(100):
        found = made(results, rng.normal(-0.02, 0.03), rng.exponential(0.04), "not above")
        high = stats.ttest_1samp(found.differences, 0, alternative="less").confidence_interval(0.95).high
        assert (found.p_not_above < ALPHA) == (high < 0.02)
        if found.found in ("not above", "unresolved"):
            assert (found.found == "not above") == (high < 0.02)
        seen.add(found.found)
    assert seen == {"not above", "below", "equal", "unresolved", "above"}


def test_controls_are_counted_as_sound_not_resolved_and_failed(results):
    found = [made(results, *level) for level in ((0.0, 0.01), (0.0, 0.05), (0.05, 0.01))]
    named = zip(found, ("one", "two", "three"), strict=True)
    found = [replace(each, comparison=each.comparison._replace(name=name)) for each, name in named]
    said = comparisons.controls(found)
    assert said == "1 of 3 controls came out as predicted; not resolved: *two*; against the prediction: *three*."
    assert comparisons.controls(found[:1]) == "1 of 1 controls came out as predicted."


def test_what_matters_is_in_the_legend_or_in_a_column(results):
    one, other = made(results, 0.0, 0.01), made(results, 0.0, 0.01, matters=5)
    assert "2 points" in comparisons.legend([one, one], "planned comparisons")
    assert "2 points" not in comparisons.shown([one, one], known=comparisons.matters([one, one]))
    both = comparisons.shown([one, other], known=comparisons.matters([one, other]))
    assert "| matters |" in both and "| 2 points |" in both and "| 5 points |" in both
    assert "| 5 points |" in comparisons.shown([other], known="2 points")  # of controls, beside others' legend
    row = records(comparisons.table(replace(results, study=replace(results.study, comparisons=(PAIRS[1],)))))[0]
    [verdict] = verdicts(results, (PAIRS[1],))
    assert row["matters"] == "2" and float(row["p equivalence"]) == pytest.approx(verdict.p_equivalence, abs=5e-4)


def test_the_figure_shades_what_does_not_matter(results):
    """Of each comparison its own band, around no difference."""
    pairs = (PAIRS[0]._replace(matters=3.0), PAIRS[1], PAIRS[2]._replace(predicted="equal"))
    figure, _ = answer_figure.draw(replace(results, study=replace(results.study, comparisons=pairs)))
    bands = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[0].patches]
    assert [x for band in bands for x in band] == pytest.approx([-3, 3, -2, 2, -2, 2])


def test_the_page_of_all_answers_shows_what_matters_where_it_is_known(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [tmp_path / "results" / name for name in ("s", "earlier")]
    for folder in folders:
        folder.mkdir(parents=True)
        overview.summarize(results, folder, "run s", "An answer.")
    summary = json.loads((folders[1] / "summary.json").read_text())
    for row in summary["comparisons"]:
        del row["matters"]  # written before there was one
    (folders[1] / "summary.json").write_text(json.dumps(summary))
    text = overview.write().read_text()
    assert text.count("| 2 points |") == len(PAIRS) and text.count("| x c against x a |") == 2


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
