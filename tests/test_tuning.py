"""Learning rates: equal trials, seeds of their own, and a table that is enough without the trials."""

import pytest

from ablations.grid import cells
from ablations.study import Arm, Study, Tuning
from ablations.sweep import tuning
from lit_rl.errors import UsageError

RATES = (1e-3, 1e-2)
ARMS = (
    Arm("x RLOO", {"data": {"stream": 0}}, rate="RLOO"),
    Arm("y RLOO", {"data": {"stream": 1}}, rate="RLOO"),
    Arm("x PPO", {"data": {"stream": 2}}, rate="PPO"),
    Arm("x control", {"data": {"stream": 3}}, rate="RLOO", trial=False),
    Arm("untouched", {"model": {"init_args": {"learning_rate": 5.0}}}),
)
BASE = {"model": {"class_path": "RLOO", "init_args": {}}, "trainer": {"max_epochs": 2}}


def study(**kwargs) -> Study:
    defaults = {"base": BASE, "tuning": Tuning(RATES, (100, 101)), "seeds": (0, 1)}
    return Study("s", "?", "here", ARMS, "x RLOO", "test/accuracy", (), **{**defaults, **kwargs})


def rates(found: Study) -> dict[str, float | None]:
    return {arm.name: arm.config.get("model", {}).get("init_args", {}).get("learning_rate") for arm in found.arms}


def test_every_arm_is_tried_as_often_on_seeds_of_its_own():
    trials = tuning.trials(study())
    assert trials is not None and trials.seeds == (100, 101) and trials.label(False) != study().label(False)
    expected = {tuning.trial_name(arm.name, rate) for arm in ARMS[:3] for rate in RATES}
    assert {cell.arm for cell in cells(trials)} == expected and len(cells(trials)) == 2 * len(expected)
    assert {cell.config["model"]["init_args"]["learning_rate"] for cell in cells(trials)} == set(RATES)
    assert tuning.trials(study(tuning=None)) is None


def test_a_study_may_not_use_the_seeds_it_was_tuned_on():
    with pytest.raises(ValueError, match="tuned on seeds"):
        study(seeds=(0, 101))


def test_a_group_takes_the_rate_that_is_best_on_the_mean_over_its_arms():
    scores = {("x RLOO", 1e-3): 0.9, ("x RLOO", 1e-2): 0.5, ("y RLOO", 1e-3): 0.1, ("y RLOO", 1e-2): 0.8}
    scores |= {("x PPO", 1e-3): 0.5, ("x PPO", 1e-2): 0.5}
    best = tuning.best_rates(study(), scores)
    assert best == {"RLOO": 1e-2, "PPO": 1e-3}  # of equal ones the lower
    expected = {"x RLOO": 1e-2, "y RLOO": 1e-2, "x PPO": 1e-3, "x control": 1e-2, "untouched": 5.0}
    assert rates(tuning.with_rates(study(), best)) == expected


def test_a_table_of_trials_is_enough_and_half_of_one_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UsageError, match="no finished cells"):
        tuning.tuned(study(), smoke=False)
    table = tmp_path / "results" / "s" / tuning.TRIALS
    table.parent.mkdir(parents=True)
    lines = [f"{arm.name},{rate},{seed},{rate}" for arm in ARMS[:3] for rate in RATES for seed in (100, 101)]
    table.write_text("\n".join(["arm,rate,seed,score", *lines, ""]))
    assert rates(tuning.tuned(study(), smoke=False))["x control"] == 1e-2
    table.write_text("\n".join(["arm,rate,seed,score", *lines[:-1], ""]))
    with pytest.raises(UsageError, match="1 are missing, x PPO at 0.01"):
        tuning.tuned(study(), smoke=False)
    assert not list(tmp_path.glob("mlruns/*.db"))


def test_a_smoke_run_is_not_tuned():
    assert set(rates(tuning.tuned(study(), smoke=True)).values()) == {1e-2, 5.0}
