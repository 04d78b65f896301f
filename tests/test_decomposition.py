"""The exact rows of `decomposition`: what must be unbiased is, and what bends does so by its formula."""

from pathlib import Path

import pytest
from scipy.stats import spearmanr

from ablations.exact.decomposition import estimators, rows_of
from ablations.records import exact_rows

RESPONSE_LEVEL = "RLOO", "REINFORCE", "PPO, random critic", "TRePO, cut at 2", "TRePO, cut at 3", "TRePO, cut at 3, K=2"
CAUSAL, EVEN = "reward as earned", "reward spread evenly"


@pytest.fixture(scope="module")
def found():
    return {(c, row["estimator"]): row for c in (0.0, 1.0) for row in rows_of("Parity", c)}


def test_every_bias_and_every_noise_with_a_formula_is_as_the_formula_says(found):
    for row in found.values():
        assert row["holds"] == "yes"
        assert row["relative bias"] == pytest.approx(row["predicted bias"], abs=1e-12)
        assert (row["predicted noise"] != "") == (row["predicted noise per token"] != "")


@pytest.mark.parametrize("name", [*RESPONSE_LEVEL, CAUSAL])
def test_response_rewards_and_causal_token_rewards_are_unbiased_for_every_reward(found, name):
    assert all(found[c, name]["relative bias"] < 1e-12 for c in (0.0, 1.0))


@pytest.mark.parametrize("name", sorted(set(estimators()) - {*RESPONSE_LEVEL, CAUSAL, EVEN}))
def test_what_takes_the_reward_for_a_sum_bends_where_it_is_none(found, name):
    assert found[0.0, name]["relative bias"] < 1e-12 < 1e-3 < found[1.0, name]["relative bias"]


def test_a_reward_that_is_spread_evenly_is_biased_even_where_it_is_a_sum(found):
    assert all(found[c, EVEN]["relative bias"] > 0.1 for c in (0.0, 1.0))


def test_causal_token_rewards_have_less_noise_only_where_something_is_known_early(found):
    noise = {c: found[c, CAUSAL]["noise"] / found[c, "REINFORCE"]["noise"] for c in (0.0, 1.0)}
    assert noise[0.0] < 0.9 and noise[1.0] == pytest.approx(1)


def test_the_committed_rows_say_what_the_study_says_of_them():
    rows = exact_rows.read(Path(__file__).parents[1] / "results" / "decomposition")
    bent = {
        name: [float(row["relative bias"]) for row in rows if row["c"] == "1" and row["estimator"] == name]
        for name in estimators()
    }
    paid = [x for name in bent for x in bent[name] if "sum" in name or name == EVEN]
    assert (round(100 * min(paid)), round(100 * max(paid))) == (2, 94)
    assert {round(100 * x) for x in bent["PPO lambda 0.95, additive critic"]} == {1}
    assert {round(100 * x) for x in bent["PPO lambda 0.5, additive critic"]} == {6, 7}
    forked = [
        (float(row["noise per token"]), float(row["predicted noise per token"]))
        for row in rows
        if row["estimator"].startswith("TRePO")
    ]
    measured, predicted = zip(*forked, strict=True)
    assert (f"{min(measured):.2f}", f"{max(measured):.2f}") == ("0.70", "1.40")
    assert all(1 / 1.075 < x / y < 1.075 and (x > 1) == (y > 1) for x, y in forked)
    assert spearmanr(measured, predicted).statistic > 0.95
