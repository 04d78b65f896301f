"""What is found of a comparison, by what matters: above, below, equal, not above or unresolved."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_cells import PAIRS, cell, made_up, records
from scipy import stats

import ablations.analysis.statistics as st
from ablations.analysis import comparisons
from ablations.analysis.verdicts import ALPHA, Verdict, verdicts
from ablations.metric_names import NOISE
from ablations.report import answer_figure, overview
from ablations.study import Comparison


@pytest.fixture
def results():
    return made_up()


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
