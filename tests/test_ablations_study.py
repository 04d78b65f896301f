"""Grids and hashes: no training."""

import hashlib
import math
from dataclasses import replace

import pytest

from ablations.config import merge, nested
from ablations.grid import cells
from ablations.metric_names import MEMORY, NOISE
from ablations.metric_units import neutral, recorded, scaled
from ablations.records.trials import trials
from ablations.studies import STUDIES, find
from ablations.study import Arm, Comparison, Study
from lit_rl.errors import UsageError

NOISED = f"{NOISE}token"
BASE = {
    "model": {"class_path": "RLOO", "init_args": {"samples": 4, "learning_rate": 1e-4}},
    "trainer": {"max_epochs": 3},
}

# of the hashes of every cell, trials among them: another digest, and all that has been run is outdated
DIGESTS = {
    "quickstart": "1b82edf87cba",
    "position_credit": "c0e7de62593f",
    "decomposition": "524a2fc46bd3",
    "sampling_budget": "dc90ea0f5986",
    "sampling_budget-mid": "071ce6535735",
    "sampling_budget-small": "d821dc14e99e",
    "estimators": "dac8307df920",
    "binary_math": "20e4fc9fae16",
    "binary_math-mid": "103df4a5fa5f",
    "natural_start-small": "f2c9118eb96f",
    "token_information": "8048a2b72da0",
    "multi_turn": "8a02a6f28621",
    "wall_clock": "2ee2fd944beb",
    "failure_signatures": "b6380b7dc301",
    "all_algorithms": "f007100f8e5a",
}


def study(*arms: Arm, **kwargs) -> Study:
    arms = arms or (Arm("start", {"trainer": {"max_epochs": 0}}), Arm("trained", {}))
    defaults = {"baseline": arms[0].name, "primary_metric": "test/accuracy", "comparisons": (), "base": BASE}
    return Study("s", "?", "here", arms, **{**defaults, **kwargs})


def test_merge_is_deep_and_leaves_its_arguments_alone():
    changes = {"model": {"init_args": {"samples": 8}}, "data": {"seed": 1}}
    merged = merge(BASE, changes)
    assert merged["model"] == {"class_path": "RLOO", "init_args": {"samples": 8, "learning_rate": 1e-4}}
    assert merged["data"] == {"seed": 1} and BASE["model"]["init_args"]["samples"] == 4
    assert merge(merged, {}) == merged and merge({}, merged) == merged


def test_a_class_takes_over_nothing_that_is_set_for_another():
    with pytest.raises(UsageError, match="model: lit_rl.algorithms.PPO would take over what is set for RLOO"):
        merge(BASE, {"model": {"class_path": "lit_rl.algorithms.PPO"}})
    same = merge(BASE, {"model": {"class_path": "lit_rl.algorithms.RLOO"}})
    assert same["model"]["init_args"] == BASE["model"]["init_args"]
    bare = {"model": {"class_path": "RLOO"}, "data": {"task": {"init_args": {"seed": 1}}}}
    changes = {"model": {"class_path": "PPO"}, "data": {"task": {"class_path": "GSM8KStyle"}}}
    assert merge(bare, changes)["model"] == {"class_path": "PPO"}
    assert merge(bare, changes)["data"]["task"] == {"class_path": "GSM8KStyle", "init_args": {"seed": 1}}


def test_hash_ignores_the_order_of_keys_and_nothing_else():
    def digest(config, seed=0):
        return cells(study(Arm("a", config)), [seed])[0].hash

    one = {"model": {"init_args": {"samples": 8, "temperature": 1.0}}}
    other = {"model": {"init_args": {"temperature": 1.0, "samples": 8}}}
    assert digest(one) == digest(other)
    changed = {"model": {"init_args": {"samples": 8, "temperature": 0.9}}}
    assert len({digest(one), digest(changed), digest({}), digest(one, seed=1)}) == 4
    assert len(digest(one)) == 12


def test_a_seed_reaches_the_weights_and_the_data():
    for cell in cells(study(), [3, 5]):
        assert cell.config["seed_everything"] == cell.seed
    assert [(cell.arm, cell.seed) for cell in cells(study(), [3, 5])] == [
        ("start", 3),
        ("trained", 3),
        ("start", 5),
        ("trained", 5),
    ]
    assert [cell.seed for cell in cells(study(seeds=(7,)))] == [7, 7]


def test_smoke_comes_last_but_trains_no_untrained_arm():
    tried = cells(study(smoke={"trainer.max_epochs": 1, "data.eval_prompts": 2}), [0], smoke=True)
    assert [cell.config["trainer"]["max_epochs"] for cell in tried] == [0, 1]
    assert [cell.trained for cell in tried] == [False, True]
    assert all(cell.config["data"]["eval_prompts"] == 2 for cell in tried)


def test_a_study_names_its_own_arms():
    with pytest.raises(ValueError, match="nobody"):
        study(comparisons=(Comparison(("nobody",), ("start",)),))
    with pytest.raises(ValueError, match="nobody"):
        study(Arm("start", {}), Arm("other", {}, baseline="nobody"))


def test_a_study_is_checked_when_it_is_written():
    arms = (Arm("a", {}), Arm("b", {}))
    assert study(*arms, baseline="").baseline == "a"
    for wrong, said in (
        ({"arms": ()}, "no arms"),
        ({"arms": (*arms, Arm("a", {}))}, "two arms are called a"),
        ({"comparisons": 7 * (Comparison(("a",), ("b",)),)}, "7 planned comparisons"),
        ({"comparisons": (Comparison.between("a", "b", matters=0),)}, "a against b: .* more than 0 points, not 0"),
        ({"controls": (Comparison.between("a", "b", "equal", metric=MEMORY, matters=-5),)}, "more than 0 MiB, not -5"),
        ({"exploratory": (Comparison.between("a", "b", metric=NOISED, matters=1),)}, "a factor above 1, not 1"),
        ({"comparisons": (Comparison.between("a", "b", matters=math.inf),)}, "more than 0 points, not inf"),
        ({"comparisons": (Comparison.between("a", "b", "bellow"),)}, "'bellow', which is none of above, below"),
        ({"gpus_per_cell": 2}, "its gpus_per_cell is 2: it must be at least 0 and at most 1"),
        ({"cpus_per_cell": 0}, "its cpus_per_cell is 0: it must be above 0"),
        ({"controls": (Comparison.between("a", "b"),)}, "its control a against b has no prediction"),
    ):
        with pytest.raises(ValueError, match=f"study s: .*{said}"):
            replace(study(*arms), **wrong)


def test_a_difference_that_matters_has_the_unit_of_reports():
    pairs = [Comparison.between("a", "b", metric=metric) for metric in ("test/accuracy", NOISED, MEMORY)]
    made = study(Arm("a", {}), Arm("b", {}), baseline="a", comparisons=(*pairs, pairs[0]._replace(matters=0.5)))
    assert [made.matters_of(each) for each in made.comparisons] == [2, 1.2, 50, 0.5]
    for each in made.comparisons:
        metric, least = made.metric_of(each), made.matters_of(each)
        assert scaled(recorded(least, metric), metric) == pytest.approx(least) and recorded(least, metric) > 0
        assert scaled(0.0, metric) == neutral(metric) < least
    assert (recorded(0.5, "test/accuracy"), recorded(50, MEMORY)) == (0.005, 50)


def test_settings_are_named_as_on_the_command_line():
    flat = {"model": "RLOO", "model.samples": 4, "data.task": "KeyToken", "data.task.length": 8, "budget.seconds": 1}
    written = {
        "model": {"class_path": "RLOO", "init_args": {"samples": 4}},
        "data": {"task": {"class_path": "KeyToken", "init_args": {"length": 8}}},
        "budget": {"seconds": 1},
    }
    assert nested(flat) == nested(written) == written and nested({}) == {}
    assert nested({"model": {"class_path": "PPO"}, "model.policy.path": "p"})["model"] == {
        "class_path": "PPO",
        "init_args": {"policy": {"init_args": {"path": "p"}}},
    }
    with pytest.raises(UsageError, match="PPO would take over what is set for RLOO"):
        merge(nested(flat), nested({"model": "PPO"}))


def test_a_comparison_over_tasks_is_of_the_means_over_their_arms():
    pair = Comparison.between("a", "b", "above", tasks=iter(("x", "y", "z")))
    assert (pair.arms, pair.against) == (("x a", "y a", "z a"), ("x b", "y b", "z b"))
    assert str(pair) == "a against b, x, y and z"
    assert str(Comparison.between("a", "b", tasks=("x",))) == "x a against x b"
    assert str(Comparison.between("a", "b")) == "a against b" and Comparison.between("a", "b").arms == ("a",)


def test_an_arm_s_variant_takes_its_rate_and_is_not_tried():
    arm = Arm("a", {"model": "RLOO"}, tuned_as="r").but("b", {"data.stream": 1})
    assert (arm.name, arm.tuned_as, arm.trial) == ("b", "r", False)
    assert arm.config == {"model": {"class_path": "RLOO"}, "data": {"stream": 1}}


def test_every_study_has_distinct_cells():
    for each in STUDIES.values():
        for smoke in (False, True):
            found = cells(each, smoke=smoke)
            seeds = each.seeds_to_run(smoke)
            assert len({cell.hash for cell in found}) == len(found) == len(each.arms) * len(seeds)
            assert set(each.own_seeds(smoke)) <= set(seeds) <= {*each.seeds, *each.calibration}


@pytest.mark.parametrize("key", STUDIES)
def test_no_cell_is_outdated(key):
    found = [each for each in (STUDIES[key], trials(STUDIES[key])) if each is not None]
    hashes = [
        cell.hash for each in found for smoke in (False, True) for cell in cells(each, each.seeds_to_run(False), smoke)
    ]
    assert hashlib.md5(" ".join(hashes).encode()).hexdigest()[:12] == DIGESTS[key]


def test_a_mistyped_study_is_guessed():
    with pytest.raises(UsageError, match="did you mean quickstart"):
        find("quickstrat")
