"""Grids and hashes: no training."""

import pytest

from ablations.config import merge
from ablations.studies import STUDIES, find
from ablations.study import Arm, Comparison, Study
from lit_rl.errors import UsageError

BASE = {
    "model": {"class_path": "RLOO", "init_args": {"samples": 4, "learning_rate": 1e-4}},
    "trainer": {"max_epochs": 3},
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
        return study(Arm("a", config)).cells([seed])[0].hash

    one = {"model": {"init_args": {"samples": 8, "temperature": 1.0}}}
    other = {"model": {"init_args": {"temperature": 1.0, "samples": 8}}}
    assert digest(one) == digest(other)
    changed = {"model": {"init_args": {"samples": 8, "temperature": 0.9}}}
    assert len({digest(one), digest(changed), digest({}), digest(one, seed=1)}) == 4
    assert len(digest(one)) == 12


def test_a_seed_reaches_the_weights_and_the_data():
    for cell in study().cells([3, 5]):
        assert cell.config["seed_everything"] == cell.seed
    assert [(cell.arm, cell.seed) for cell in study().cells([3, 5])] == [
        ("start", 3),
        ("trained", 3),
        ("start", 5),
        ("trained", 5),
    ]
    assert [cell.seed for cell in study(seeds=(7,)).cells()] == [7, 7]


def test_smoke_comes_last_but_trains_no_untrained_arm():
    cells = study(smoke={"trainer": {"max_epochs": 1}, "data": {"eval_prompts": 2}}).cells([0], smoke=True)
    assert [cell.iterations for cell in cells] == [0, 1]
    assert all(cell.config["data"]["eval_prompts"] == 2 for cell in cells)


def test_a_study_names_its_own_arms():
    with pytest.raises(ValueError, match="nobody"):
        study(comparisons=(Comparison(("nobody",), ("start",)),))
    with pytest.raises(ValueError, match="nobody"):
        study(Arm("start", {}), Arm("other", {}, baseline="nobody"))


def test_every_study_has_distinct_cells():
    for each in STUDIES.values():
        for smoke in (False, True):
            cells = each.cells(smoke=smoke)
            assert len({cell.hash for cell in cells}) == len(cells) == len(each.arms) * len(each.seeds)


def test_a_mistyped_study_is_guessed():
    with pytest.raises(UsageError, match="did you mean quickstart"):
        find("quickstrat")
