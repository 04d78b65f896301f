"""Allocations and learning rates: equal trials, seeds of their own, and a table that is enough without the trials."""

import pytest

from ablations.grid import cells
from ablations.records.trials import COLUMNS, TABLE, candidates, recorded, trial_name, trials
from ablations.study import Arm, Choice, Study, Tuning
from ablations.sweep import tuning
from lit_rl.errors import UsageError

RATES = (1e-3, 1e-2)
WIDE, DEEP = "8 x 1", "2 x 4"
PAIRS = {name: {"data.prompts_per_iteration": n, "model.samples": m} for name, n, m in ((WIDE, 8, 1), (DEEP, 2, 4))}
ARMS = (
    Arm("x RLOO", {"data": {"stream": 0}}, tuned_as="RLOO"),
    Arm("y RLOO", {"data": {"stream": 1}}, tuned_as="RLOO"),
    Arm("x PPO", {"data": {"stream": 2}}, tuned_as="PPO", allocations=PAIRS),
    Arm("x control", {"data": {"stream": 3}}, tuned_as="RLOO", trial=False),
    Arm("y control", {"data": {"stream": 4}}, tuned_as="PPO", trial=False, allocations=PAIRS),
    Arm("untouched", {"model": {"init_args": {"learning_rate": 5.0}}}),
)
BASE = {"model": {"class_path": "RLOO", "init_args": {}}, "trainer": {"max_epochs": 2}}
PPO = Choice(DEEP, 1e-2)


def study(**kwargs) -> Study:
    defaults = {"base": BASE, "tuning": Tuning(RATES, (100, 101)), "seeds": (0, 1)}
    given = {"arms": ARMS, "baseline": "x RLOO", "primary_metric": "test/accuracy", **defaults, **kwargs}
    return Study("s", "?", "here", **given)


def settings(found: Study) -> dict[str, tuple[float | None, int | None]]:
    """By arm: the learning rate, and the prompts."""
    return {
        arm.name: (
            arm.config.get("model", {}).get("init_args", {}).get("learning_rate"),
            arm.config.get("data", {}).get("prompts_per_iteration"),
        )
        for arm in found.arms
    }


def test_every_arm_is_tried_with_each_allocation_and_rate_on_seeds_of_its_own():
    tried = trials(study())
    assert tried is not None and tried.seeds == (100, 101) and tried.label(False) != study().label(False)
    expected = {trial_name(arm.name, Choice("", rate)) for arm in ARMS[:2] for rate in RATES}
    expected |= {f"x PPO, {name} at {rate:g}" for name in PAIRS for rate in RATES}
    assert {cell.arm for cell in cells(tried)} == expected and len(cells(tried)) == 2 * len(expected)
    assert {cell.config["model"]["init_args"]["learning_rate"] for cell in cells(tried)} == set(RATES)
    assert settings(tried)["x PPO, 8 x 1 at 0.001"] == (1e-3, 8) and settings(tried)[trial_name("x PPO", PPO)][1] == 2
    assert len({cell.hash for cell in cells(tried)}) == len(cells(tried))
    assert trials(study(tuning=None, arms=ARMS[-1:], baseline="")) is None


def test_a_task_has_rates_of_its_own():
    arms = tuple(Arm(name, {}, tuned_as=name, task=name.split()[0]) for name in ("x RLOO", "y RLOO"))
    own = study(arms=arms, tuning=Tuning(RATES, (100,), rates_by_task={"y": (3e-4, 3e-3, 3e-2)}))
    tried = trials(own)
    assert tried is not None
    rates = [settings(tried)[arm][0] for arm in tried.arm_names]
    assert rates == [*RATES, 3e-4, 3e-3, 3e-2]
    assert [settings(tuning.tuned(own, smoke=True))[arm.name][0] for arm in arms] == [1e-2, 3e-3]


@pytest.mark.parametrize(
    ("arms", "changes", "said"),
    [
        (ARMS, {"seeds": (0, 101)}, "seed 101 is both of the trials and of the study"),
        (
            ARMS,
            {"tuning": Tuning(RATES, (100,), rates_by_task={"z": RATES})},
            "rates for z, which is the task of no arm",
        ),
        (ARMS, {"tuning": None}, "arm x RLOO is tuned_as RLOO, but there is no tuning"),
        (ARMS[-1:], {}, "a tuning, but nothing to try"),
        (ARMS[:1] + ARMS[4:], {}, "arm y control is tuned_as PPO, which no arm tries"),
        (ARMS[:1], {"arms": (Arm("x", {}, allocations=PAIRS),)}, "arm x has allocations, but no tuned_as"),
        (
            (*ARMS, Arm("y PPO", {}, tuned_as="PPO")),
            {},
            "arms x PPO and y PPO, both tuned_as PPO, have different allocations",
        ),
        (
            (*ARMS, Arm("z control", {}, tuned_as="RLOO", trial=False, allocations=PAIRS)),
            {},
            "arms x RLOO and z control, both tuned_as RLOO, have different allocations",
        ),
        (ARMS, {"seeds": 5}, "its seeds are 5; give different whole numbers"),
        (ARMS, {"seeds": (1, 1)}, r"its seeds are \(1, 1\)"),
        (ARMS, {"scale": "huge"}, "its scale is 'huge', which is none of tiny, mid, small"),
    ],
)
def test_a_study_whose_trials_cannot_choose_is_refused(arms, changes, said):
    with pytest.raises(ValueError, match=f"^study s: .*{said}"):
        study(**{"arms": arms, "baseline": "", **changes})


@pytest.mark.parametrize("rates", [(), 1e-3, (1e-3, 1e-3), (1e-3, 0), (1e-3, -1e-3), ("1e-3",), (float("inf"),)])
def test_learning_rates_to_try_are_different_numbers_above_0(rates):
    with pytest.raises(ValueError, match="^rates of the trials are .*; give different numbers above 0"):
        Tuning(rates, (100,))


@pytest.mark.parametrize("seeds", [(), 100, (100, 100), (-1,), (0.5,)])
def test_seeds_of_trials_are_different_whole_numbers(seeds):
    with pytest.raises(ValueError, match="^seeds of the trials are .*; give different whole numbers"):
        Tuning(RATES, seeds)


@pytest.mark.parametrize("allocations", [("8 x 4",), {"8 x 4": 8}, None])
def test_allocations_are_settings_by_name(allocations):
    with pytest.raises(ValueError, match="^arm x: allocations are .*; give settings by name"):
        Arm("x", {}, tuned_as="x", allocations=allocations)


def test_a_group_takes_what_is_best_on_the_mean_over_its_arms():
    low, high = Choice("", 1e-3), Choice("", 1e-2)
    scores = {("x RLOO", low): 0.9, ("x RLOO", high): 0.5, ("y RLOO", low): 0.1, ("y RLOO", high): 0.8}
    scores |= {("x PPO", choice): 0.5 for choice in candidates(study(), ARMS[2])}
    # of equal ones the lowest rate of the first allocation
    assert tuning.best(study(), scores) == {"RLOO": high, "PPO": Choice(WIDE, 1e-3)}
    best = tuning.best(study(), scores | {("x PPO", PPO): 0.6})
    assert best == {"RLOO": high, "PPO": PPO}
    found = tuning.with_choices(study(), best)
    expected = dict.fromkeys(("x RLOO", "y RLOO", "x control"), (1e-2, None))
    assert settings(found) == expected | dict.fromkeys(("x PPO", "y control"), (1e-2, 2)) | {"untouched": (5.0, None)}
    assert found.arm("y control").chosen == PPO and found.arm("untouched").chosen is None


def lines(found: Study) -> list[str]:
    """Of a table in which the highest rates and the last allocations are best."""
    tried = trials(found)
    assert tried is not None
    hashes = {(cell.arm, cell.seed): cell.hash for cell in cells(tried)}
    made = []
    for arm in ARMS[:3]:
        for choice in candidates(found, arm):
            for seed in (100, 101):
                score = choice.rate + (choice.allocation == DEEP)
                digest = hashes[trial_name(arm.name, choice), seed]
                made.append(f"{arm.name},{choice.allocation},{choice.rate},{seed},{digest},{score}")
    return made


def test_a_table_of_trials_is_enough_and_half_of_one_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert recorded(study()) == []
    with pytest.raises(UsageError, match="8 are missing, x RLOO at 0.001 for one"):
        tuning.tuned(study(), smoke=False)
    table = tmp_path / "results" / "s" / TABLE
    table.parent.mkdir(parents=True)
    heading = ",".join((*COLUMNS, "test/accuracy"))
    table.write_text("\n".join([heading, *lines(study()), ""]))
    found = settings(tuning.tuned(study(), smoke=False))
    assert (
        len(recorded(study())) == len(lines(study()))
        and found["x control"] == (1e-2, None)
        and found["y control"] == (1e-2, 2)
    )
    table.write_text("\n".join([heading, *lines(study())[:-1], ""]))
    with pytest.raises(UsageError, match="1 are missing, x PPO, 2 x 4 at 0.01"):
        tuning.tuned(study(), smoke=False)
    assert not list(tmp_path.glob("mlruns/*.db"))


def test_trials_of_other_settings_do_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    table = tmp_path / "results" / "s" / TABLE
    table.parent.mkdir(parents=True)
    table.write_text("\n".join([",".join((*COLUMNS, "test/accuracy")), *lines(study()), ""]))
    longer = study(base={**BASE, "trainer": {"max_epochs": 3}})
    assert recorded(study()) and not recorded(longer)
    with pytest.raises(UsageError, match="8 are missing"):
        tuning.tuned(longer, smoke=False)


def test_a_smoke_run_is_not_tuned():
    assert set(settings(tuning.tuned(study(), smoke=True)).values()) == {(1e-2, None), (1e-2, 2), (5.0, None)}
