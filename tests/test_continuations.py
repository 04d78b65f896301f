"""Where continuations pay: the theory against simulated advantages, the crossing against a search, the tables."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ablations.analysis import continuations, gradient_noise, value_accuracy
from ablations.analysis.metric_text import difference, limits
from ablations.analysis.statistics import Interval
from ablations.analysis.verdicts import verdicts
from ablations.metric_names import MEMORY, NOISE, OVER_SECONDS, SECONDS
from ablations.records.cell_result import CellResult
from ablations.records.study_results import StudyResults
from ablations.report import answer_figure, continuation_figures, page, study_report
from ablations.study import Arm, Comparison, Study
from lit_rl.functional.prefix_values import prefix_advantages

LENGTH, SAMPLES, N = 8, 4, 60_000
SEEDS = range(8)


def simulated(steps: np.ndarray, stride: int, k: int, fill: str, paid: bool) -> float:
    """The mean over tokens of E[A^2], relative to RLOO's, where the reward is a sum of independent steps [N, T]."""
    rng = np.random.default_rng(1)
    reward = steps.sum(1)

    def rest(t: int, copies: int) -> np.ndarray:  # the mean of new endings behind t tokens
        return np.stack([rng.permuted(steps, axis=0)[:, t:].sum(1) for _ in range(copies)]).mean(0)

    cuts = np.arange(0, LENGTH, stride)
    found = [steps[:, :t].sum(1) + rest(t, k if t or paid else SAMPLES - 1) for t in cuts]
    own = prefix_advantages(
        torch.from_numpy(reward),
        torch.from_numpy(cuts).expand(len(steps), -1),
        torch.from_numpy(np.stack(found, 1)),
        torch.ones(len(steps), LENGTH, dtype=torch.bool),
        fill,
    )
    baseline = reward - rest(0, SAMPLES - 1)
    return float(own.square().mean() / np.square(baseline).mean())


@pytest.mark.parametrize(
    ("stride", "k", "fill", "paid"),
    [(4, 1, "segment_td", False), (2, 2, "segment_td", True), (1, 4, "segment_td", False), (2, 1, "hold_mc", False)],
)
def test_the_predicted_noise_is_that_of_simulated_advantages(stride, k, fill, paid):
    spread = np.array([0.1, 1.0, 0.3, 0.0, 2.0, 0.5, 0.2, 0.9])
    steps = np.random.default_rng(0).normal(0, 1, (N, LENGTH)) * spread
    resolved = [0.0, *(np.cumsum(spread**2) / np.sum(spread**2))]
    arguments = {"samples": SAMPLES, "continuations": k, "fill": fill, "root": "continuations" if paid else "siblings"}
    known = simulated(steps, stride, k, fill, paid)
    assert continuations._ratio(resolved, stride, arguments) == pytest.approx(known, rel=0.03)


def test_where_it_pays_the_costs_cross():
    other = (8.0, 8.0)
    for noise, generated, trained in (
        (0.7, 20.0, 8.0),
        (0.3, 20.0, 8.0),
        (0.9, 9.0, 8.0),
        (1.1, 20.0, 8.0),
        (0.6, 20.0, 20.0),
    ):
        kappa = continuations.pays_from(noise, generated, trained, other)
        below = lambda x, n=noise, g=generated, t=trained: n * (g + x * t) < other[0] + x * other[1]
        grid = [x for x in np.geomspace(1e-3, 1e4, 4000) if below(x)]
        assert kappa == pytest.approx(min(grid), rel=0.01) if grid and kappa else (kappa == 0) == bool(grid)


def made(name: str, trace: float, tokens: float, seed: int, **curves: dict[int, float]) -> CellResult:
    jitter = math.exp(np.random.default_rng(seed).normal(0, 0.02))
    measured = {
        "gradient/trace_cov": dict.fromkeys((1, 2, 3), trace * jitter),
        "tokens/generated": {step: 10 * tokens * step for step in range(4)},
        "tokens/continued": {step: 10 * (tokens - 32) * step for step in range(1, 4)},
        SECONDS: {step: 2.0 * step for step in range(4)},
    }
    return CellResult(
        name, seed, 3, "commit", "hash", f"{name}{seed}", {"tokens/generated": 30 * tokens}, measured | curves
    )


@pytest.fixture
def results():
    """RLOO; TRePO with half the noise at 2.5 times the tokens; and the same trained on them all."""
    stride = {"class_path": "lit_rl.functional.cuts.Stride", "init_args": {"every": 2}}
    forked = {"cuts": stride, "continuations": 1, "samples": SAMPLES}
    settings = {"RLOO": {"samples": SAMPLES}, "TRePO": forked, "TRePO, reuse": forked | {"reuse": True}}
    arms = tuple(
        Arm(
            f"x {name}",
            {"model": {"init_args": own}, "data": {"prompts_per_iteration": 10}},
            "x RLOO",
            frozen=True,
            task="x",
        )
        for name, own in settings.items()
    )
    accurate = {f"value_accuracy/{what}{t}": {1: 0.2} for what in value_accuracy.WHAT for t in ("", "/2", "/4")}
    profile = {f"credit/resolved/{t}": {1: t / LENGTH} for t in range(LENGTH)}
    cells = []
    for seed in SEEDS:
        cells.append(made("x RLOO", 1.0, 32, seed, **profile))
        cells.append(made("x TRePO", 0.5, 80, seed, **accurate))
        cells.append(made("x TRePO, reuse", 0.3, 80, seed))
    pair = Comparison(("x TRePO",), ("x RLOO",), "above", metric=f"{NOISE}token")
    study = Study("s", "?", "here", arms, "x RLOO", f"{NOISE}token", (pair,), kappas=(1.0, 4.0))
    return StudyResults(study, False, tuple(cells), 0)


def test_noise_is_compared_at_what_is_generated_and_trained(results):
    known = {"token": 0.5 * 2.5, "kappa=1": 0.5 * (80 + 32) / 64, "kappa=4": 0.5 * (80 + 128) / 160}
    for cost, ratio in known.items():
        a, b = (results.mean_by_seed((f"x {name}",), f"{NOISE}{cost}") for name in ("TRePO", "RLOO"))
        assert np.mean([math.exp(a[seed] - b[seed]) for seed in SEEDS]) == pytest.approx(ratio, rel=0.05)
    headings, *rows = continuations.table(results).csv()
    # .5 (80 + 32 kappa) = 32 (1 + kappa) at kappa = .5; with reuse .3 * 80 is below 32 at any
    pays = headings.index("less noise from kappa")
    assert rows[1][pays] == "0.5" and rows[2][pays : pays + 3] == ["0.0"] * 3 and "noise at kappa 4" in headings
    tables = study_report.made(results)
    text = page.markdown(results, tables, {})
    assert "x1.25" in text and all(f"(tables/{table.name}.csv)" in text for table in tables)
    assert {table.name for table in tables} == {"comparisons", "gradient_noise", "values"}
    assert all(f"## {table.name}.csv" in page.guide(results, tables) for table in tables)


def test_tables_and_planned_comparisons_say_the_same_of_noise(results):
    """One seed's policy may be as noisy as all others together, and neither goes by it."""
    curves = results.cells[1].curves
    loud = replace(results.cells[1], curves=curves | {"gradient/trace_cov": dict.fromkeys((1, 2, 3), 100.0)})
    found = replace(results, cells=tuple(loud if cell is results.cells[1] else cell for cell in results.cells))
    verdict = verdicts(found, found.study.comparisons)[0].interval
    measured = [gradient_noise.measured(found, arm) for arm in ("x TRePO", "x RLOO")]
    assert gradient_noise.relative(*measured, "token") == pytest.approx([math.exp(x) for x in verdict])


def test_every_figure_is_drawn(results):
    drawn = continuation_figures.draw(results)
    assert list(drawn) == ["frontier", "crossing", "values"]  # of one TRePO arm no theory is told
    answer = answer_figure.draw(results)
    assert answer is not None and any("TRePO" in label.get_text() for label in answer[0].axes[0].get_yticklabels())
    frontier, _ = drawn["frontier"]
    assert {line.get_marker() for line in frontier.axes[0].lines} >= {"o"}


def test_an_arm_without_a_gradient_is_left_out(results):
    cells = tuple(made(cell.arm, 0.0, 80, cell.seed) if cell.arm.endswith("reuse") else cell for cell in results.cells)
    found = replace(results, cells=cells)
    assert gradient_noise.arms(found) == ["x RLOO", "x TRePO"]
    assert list(continuation_figures.draw(found)) == ["frontier", "crossing", "values"]
    assert found.value(cells[-1], f"{NOISE}token") is None


def test_differences_are_written_in_their_unit():
    found = Interval(math.log(0.5), math.log(0.4), math.log(0.625))
    assert difference(found, f"{NOISE}token") == "x0.50 [x0.40, x0.62]"
    assert difference(Interval(3.2, 1.0, 5.4), MEMORY) == "+3 MiB [+1 MiB, +5 MiB]"
    assert (
        difference(Interval(0.031, math.nan, math.nan), "val/accuracy") == "+3.1"
        and limits(Interval(0.031, math.nan, math.nan), "val/accuracy") == ""
    )


def test_a_mean_over_seconds_ends_at_the_budget():
    curves = {
        "val/accuracy_sampled": {0: 0.0, 1: 1.0, 2: 0.0},
        SECONDS: {1: 10.0, 2: 20.0},
        "tokens/generated": {0: 0.0},
    }
    arm = Arm("a", {"budget": {"seconds": 10}})
    study = Study("s", "?", "here", (arm,), "a", "test/accuracy", ())
    cell = CellResult("a", 0, 2, "commit", "hash", "id", {}, curves)
    results = StudyResults(study, False, (cell,), 0)
    assert results.value(cell, f"{OVER_SECONDS}val/accuracy_sampled") == pytest.approx(0.5)
