"""Trials by allocation and learning rate: against pandas and scipy, the edges that they have, and their figures."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from ablations import arm_colours
from ablations.analysis import response_surface
from ablations.records.study_results import FOLDER
from ablations.records.trials import candidates, scores
from ablations.report import surface_figures
from ablations.studies import STUDIES
from ablations.study import Arm, Choice, Comparison, Study, Trial, Tuning
from ablations.sweep.tuning import best, tuned, with_choices

ROOT = Path(__file__).resolve().parents[1]
FILES = "tables/surface.csv", "cells.csv"  # of a study whose trials and cells have run
REPORTED = [key for key in STUDIES if all((ROOT / FOLDER / key / file).is_file() for file in FILES)]
RATES, SEEDS = (1e-3, 2e-3, 4e-3), (100, 101, 102, 103)
METRIC, MEAN = "end/val/accuracy_sampled", "over_tokens/val/accuracy_sampled"


def allocations(*shapes: tuple[int, int]) -> dict:
    return {f"{n} x {m}": {"data.prompts_per_iteration": n, "model.samples": m} for n, m in shapes}


ARMS = (
    Arm("start", {"trainer.max_epochs": 0}),
    Arm("RLOO", {"data.stream": 0}, tuned_as="RLOO", allocations=allocations((16, 2), (8, 4), (4, 8))),
    Arm("PPO", {"data.stream": 1}, tuned_as="PPO", allocations=allocations((32, 1), (16, 2), (8, 4))),
    Arm("TRePO", {"data.stream": 2}, tuned_as="TRePO", allocations=allocations((11, 1), (4, 4))),
    Arm("TRePO, other", {"data.stream": 3}, tuned_as="TRePO", trial=False),
    Arm("plain", {"data.stream": 4}, tuned_as="plain"),
    Arm("first of two", {"data.stream": 5}, tuned_as="pair"),
    Arm("second of two", {"data.stream": 6}, tuned_as="pair"),
)
PLANNED = (Comparison.between("TRePO, other", "RLOO"), Comparison.between("PPO", "start"))


def study(**kwargs) -> Study:
    defaults = {"tuning": Tuning(RATES, SEEDS, METRIC), "seeds": (0, 1), "comparisons": PLANNED}
    return Study("s", "?", baseline="start", base={"model": "RLOO"}, **{"arms": ARMS, **defaults, **kwargs})


def trials(found: Study, favoured: dict[str, Choice] | None = None) -> list[Trial]:
    """Of random accuracies; those that are favoured come out best."""
    rng = np.random.default_rng(0)
    return [
        Trial(arm.name, choice, seed, "", {METRIC: x / 2 + ((favoured or {}).get(arm.name) == choice) / 2, MEAN: x / 2})
        for arm in found.arms
        if arm.tried
        for choice in candidates(found, arm)
        for seed in SEEDS
        for x in [float(rng.uniform())]
    ]


def chosen(found: Study, made: list[Trial]) -> Study:
    return replace(with_choices(found, best(found, scores(found, made))), trials=tuple(made))


def frame(found: Study) -> pd.DataFrame:
    """A line a trial, the arms by the names that they are tuned as."""
    groups = {arm.name: arm.tuned_as for arm in found.arms}
    rows = [(groups[t.arm], *t.choice, t.seed, t.metrics[METRIC], t.metrics[MEAN]) for t in found.trials]
    return pd.DataFrame(rows, columns=["arm", "allocation", "rate", "seed", METRIC, MEAN])


def test_the_surface_is_that_of_pandas_and_the_chosen_point_is_its_highest():
    found = chosen(study(), trials(study()))
    table = frame(found).groupby(["arm", "allocation", "rate", "seed"]).mean()
    points = response_surface.points(found)
    assert [(p.arm, *p.choice) for p in points][:4] == [("RLOO", "16 x 2", r) for r in RATES] + [
        ("RLOO", "8 x 4", 1e-3)
    ]
    assert len(points) == len(table.groupby(["arm", "allocation", "rate"])) == 9 + 9 + 6 + 3 + 3
    for point in points:
        for metric in (METRIC, MEAN):
            values = table.loc[(point.arm, *point.choice), metric].to_numpy()
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            assert len(values) == len(SEEDS) and point.metrics[metric] == pytest.approx((values.mean(), low, high))
        assert point.score == point.metrics[METRIC]
    means = frame(found).groupby(["arm", "allocation", "rate"])[METRIC].mean()
    assert {(p.arm, *p.choice) for p in points if p.chosen} == {
        (arm, *own.idxmax()[1:]) for arm, own in means.groupby("arm")
    }
    along = response_surface.best_rates(points)
    expected = means.groupby(["arm", "allocation"]).max()
    assert len(along) == len(expected)
    assert all(p.score.mean == pytest.approx(expected[p.arm, p.choice.allocation]) for p in along)


def test_tables_have_every_point_and_every_choice():
    found = chosen(study(), trials(study()))
    surface, made = response_surface.tables(found)
    headings, *rows = surface.csv()
    points = response_surface.points(found)
    assert len(rows) == len(points) and headings[:4] == ["arm", "allocation", "learning rate", "chosen"]
    for row, point in zip(rows, points, strict=True):
        assert row[:4] == [
            point.arm,
            point.choice.allocation,
            f"{point.choice.rate:g}",
            "yes" if point.chosen else "no",
        ]
        assert [float(x) / 100 for x in row[4:]] == pytest.approx([*point.score, *point.metrics[MEAN]], abs=1e-4)
    assert [row[0] for row in made.csv()[1:]] == ["RLOO", "PPO", "TRePO", "plain", "pair"]


FAVOURED = {
    "RLOO": Choice("4 x 8", 2e-3),
    "PPO": Choice("32 x 1", 4e-3),
    "TRePO": Choice("11 x 1", 1e-3),
    "plain": Choice("", 2e-3),
    "first of two": Choice("", 4e-3),
    "second of two": Choice("", 4e-3),
}


def test_edges_are_named_in_the_answer_for_arms_that_are_compared():
    found = chosen(study(), trials(study(), FAVOURED))
    assert [each[2:] for each in response_surface.choices(found)] == [
        ("no", "most responses"),
        ("highest", "fewest responses"),
        ("lowest", "fewest responses"),
        ("no", ""),
        ("highest", ""),
    ]
    assert response_surface.answer(found) == (
        "The best learning rate is the highest tried for PPO, and the lowest tried for TRePO; better ones may lie "
        "beyond. The best allocation has the most responses tried for RLOO (4 x 8), and the fewest responses tried "
        "for PPO (32 x 1) and for TRePO (11 x 1)."
    )
    one = chosen(study(comparisons=PLANNED[:1]), trials(study(), FAVOURED | {"TRePO": Choice("4 x 4", 2e-3)}))
    assert response_surface.answer(one) == (
        "The best allocation has the most responses tried for RLOO (4 x 8) and for TRePO (4 x 4)."
    )


def test_many_edges_are_counted_and_where_there_is_none_nothing_is_said():
    arms = tuple(Arm(f"arm {n}", {"data.stream": n}, tuned_as=f"arm {n}") for n in range(7))
    planned = tuple(Comparison.between(f"arm {n}", "arm 0") for n in range(1, 7))
    many = replace(study(), arms=arms, baseline="arm 0", comparisons=planned)
    ends = {arm.name: Choice("", RATES[0]) for arm in arms[1:]} | {"arm 0": Choice("", RATES[1])}
    assert "for 6 of 7 arms compared" in response_surface.answer(chosen(many, trials(many, ends)))
    inside = {arm.name: Choice("", RATES[1]) for arm in arms}
    assert not response_surface.answer(chosen(many, trials(many, inside)))


def test_without_trials_there_is_neither_a_table_nor_a_figure_nor_a_sentence():
    untuned = study(tuning=None, arms=ARMS[:1], comparisons=())
    for found in (tuned(study(), smoke=True), untuned):
        assert not any(table.rows for table in response_surface.tables(found))
        assert not surface_figures.draw(found) and not response_surface.answer(found)


def test_figures_show_the_points_and_mark_the_chosen_ones():
    found = chosen(study(), trials(study(), FAVOURED))
    figures = {name: figure for name, (figure, _) in surface_figures.draw(found).items()}
    assert list(figures) == [surface_figures.ALLOCATION, surface_figures.SURFACE]
    means = frame(found).groupby(["arm", "allocation", "rate"])[METRIC].mean()
    (axes,) = figures["allocation"].axes
    lines = {to_hex(line.get_color()): line for line in axes.lines if np.size(line.get_xdata()) > 1}
    for arm in ("RLOO", "PPO", "TRePO"):
        expected = means[arm].groupby("allocation", sort=False).max()
        expected = expected.reindex(found.arm(arm).allocations)
        line = lines[arm_colours.colours(found)[arm].lower()]
        assert np.allclose(line.get_ydata(), 100 * expected)
        assert np.allclose(np.exp2(line.get_xdata()), [int(a.split()[2]) for a in expected.index], rtol=0.25)
    assert axes.get_xticklabels()[0].get_text() == "32 x 1\nTRePO: 11 x 1"
    panels = {axes.get_title(): axes for axes in figures["surface"].axes}
    assert list(panels) == ["RLOO", "PPO", "TRePO", "plain", "pair"]
    for arm, ax in panels.items():
        drawn = [each.get_ydata() for each in ax.lines if np.size(each.get_ydata()) == len(RATES)]
        names = list(response_surface.first_arms(found)[arm].allocations) or [""]
        assert np.allclose(np.array(drawn), [100 * means[arm, name] for name in names])
        (ring,) = [line for line in ax.lines if np.size(line.get_ydata()) == 1]
        assert ring.get_ydata() == pytest.approx([100 * means[arm].max()])


def test_many_arms_have_panels_of_their_own_and_what_nobody_could_read_is_not_drawn():
    arms = tuple(Arm(f"t arm {n}", {"data.stream": n}, tuned_as=f"t arm {n}", task="t") for n in range(13))
    for count, panels in ((7, 1), (8, 8), (12, 12), (13, 0)):
        many = replace(study(comparisons=()), arms=arms[:count], baseline="")
        figures = surface_figures.draw(chosen(many, trials(many)))
        assert sum(len(figure.axes) for figure, _ in figures.values()) == panels


@pytest.mark.parametrize("key", REPORTED)
def test_the_committed_tables_and_answers_are_made_of_the_trials_beside_them(key, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///none.db")
    folder = FOLDER / key
    found = tuned(STUDIES[key], False)
    for table in response_surface.tables(found):
        with (folder / "tables" / f"{table.name}.csv").open(newline="") as file:
            assert list(csv.reader(file)) == table.csv()
    text = (folder / "report.md").read_text()
    assert response_surface.answer(found) in text[: text.index("\n## Planned")]
    assert response_surface.answer(found) in (FOLDER / "README.md").read_text()
    for name in ("surface", "allocation"):
        assert (f"]({name}.png)" in text) == (name in surface_figures.draw(found))
