"""TRL's estimators under the certificate's oracle, and its gradients beside ours. Skipped without the extra peers."""

import io
import json
from contextlib import redirect_stdout
from functools import partial

import pytest
import torch

pytest.importorskip("trl")

from peer_cases import CASES, EPSILON, Pair, compare
from peers import TRLGRPO, equal_rewards

from lit_rl.algorithms import GRPO, RLOO
from lit_rl.commands.verify import verify
from lit_rl.exact.certificate import Claim, certify
from lit_rl.exact.formulas import Formula, grpo_std, scaled
from lit_rl.exact.small_tasks import KEY_EOS, PAIRS, PARITY, SUM_EOS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's, of transformers

UNSCALED = {"settings": {"scale_rewards": "none"}}


def judged(model: str, *settings: str) -> tuple[int, list[dict]]:
    """Exit code and rows of ``python -m lit_rl verify --json --model ...``."""
    with redirect_stdout(io.StringIO()) as out:
        code = verify(["--json", "--model", model, *settings])
    return code, json.loads(out.getvalue())


# ---- the advantages, by the oracle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", ["2", "3"])
def test_leave_one_out_is_unbiased(samples):
    code, rows = judged("peers.TRLRLOO", "--model.samples", samples)
    assert code == 0 and len(rows) == 2 and all(row["relative_bias"] < 1e-9 for row in rows)


def test_leave_one_out_in_single_precision_is_off_by_its_rounding():
    """Rewards of 0, 1/2 and 1 are exact; those of the other task are not."""
    code, (exact, rounded) = judged("peers.TRLRLOO", "--model.double", "false")
    assert exact["relative_bias"] < 1e-9 < rounded["relative_bias"] < 1e-7 and code == 1


def test_the_group_mean_shrinks_the_gradient():
    code, rows = judged("peers.TRLGRPO", "--model.settings", json.dumps(UNSCALED["settings"]), "--model.samples", "3")
    assert code == 1
    assert all(
        row["relative_bias"] == pytest.approx(1 / 3, rel=1e-9) and row["cosine"] == pytest.approx(1) for row in rows
    )
    for task in (PAIRS, SUM_EOS):
        dr_grpo = partial(TRLGRPO, samples=2, normalizer="constant", **UNSCALED)
        assert certify(Claim("", dr_grpo, task, scaled("", 1 / 2 / task.length))).holds


def test_the_deviation_makes_it_another_objective():
    code, rows = judged("peers.TRLGRPO", "--model.samples", "3")
    _, ours = judged("GRPO", "--model.samples", "3", "--model.normalizer", "row_sum")
    assert code == 1 and all(row["relative_bias"] > 0.9 and row["cosine"] < 0.999 for row in rows)
    for row, own in zip(rows, ours, strict=True):
        assert 1e-4 < own["relative_bias"] - row["relative_bias"] < 1e-3  # the 1e-4 in TRL's denominator


@pytest.mark.parametrize("task", [PARITY, KEY_EOS], ids=["parity", "key token"])
def test_of_a_binary_reward_the_objective_is_known_to_the_epsilon(task):
    """Of 3 responses 1 or 2 succeed, with the deviation sqrt(1/3), or the group says nothing."""
    deviation = (1 / 3) ** 0.5
    factor = deviation / (deviation + EPSILON)
    shrunk = Formula("", lambda tree: factor * grpo_std(3).gradient(tree))
    assert certify(Claim("", partial(TRLGRPO, samples=3), task, shrunk)).holds
    assert not certify(Claim("", partial(TRLGRPO, samples=3), task, grpo_std(3))).holds


# ---- losses and gradients, side by side -----------------------------------------------------------------------------


def name(case) -> str:
    return " ".join([case.model.__name__, *(f"{key}={value}" for key, value in case.theirs.items())])


@pytest.mark.parametrize("case", CASES, ids=name)
def test_gradients_are_equal_once_the_known_difference_is_explained(case):
    first, second = compare(case)
    for step in (first, second):
        assert step.unexplained < 1e-5
        assert step.loss < 1e-5 or not case.same_loss
    assert first.clipped == 0 and (second.clipped > 0.1 or case.model is RLOO)
    assert (second.distance > 1e-4) == (case.explain is not None)


def test_both_read_the_same_tokens_and_remember_the_same_probabilities():
    pair = Pair(CASES[0])
    inputs, table = pair.trainer._generate_and_score_completions(pair.examples), pair.rollouts
    assert torch.equal(inputs["prompt_ids"], table.prompt_ids) and not table.prompt_mask.all()
    assert torch.equal(inputs["prompt_mask"].bool(), table.prompt_mask)
    assert torch.equal(inputs["completion_mask"].bool(), table.mask)
    assert torch.equal(inputs["completion_ids"] * table.mask, table.response_ids * table.mask)
    assert len(table.lengths.unique()) > 3 and 0 < table.truncated.sum() < len(table)
    old = inputs["old_per_token_logps"] * table.mask
    torch.testing.assert_close(old, table.old_logprobs, rtol=0, atol=1e-5)


def test_rloo_has_the_same_first_gradient_and_another_loss():
    """On the weights that sampled: a mean over responses of A, and of A times the response's tokens."""
    pair = Pair(next(case for case in CASES if case.model is RLOO))
    theirs, ours, table = pair.theirs(), pair.ours(), pair.rollouts
    advantages = table.advantages[:, 0]
    assert theirs.loss == pytest.approx(-float(advantages.mean()), abs=1e-6)
    assert ours.loss == pytest.approx(-float((advantages * table.lengths).mean()), abs=1e-5)
    assert abs(ours.loss - theirs.loss) > 0.1


@pytest.mark.parametrize("samples", [2, 3])
def test_a_group_without_spread(samples):
    """Its advantages are exactly 0 in ours; in TRL's float32 the rounding of its mean, over 1e-4."""
    assert equal_rewards(GRPO(samples=samples, reference=False), 0.9) == 0
    rounding = 0 if samples == 2 else 2**-24
    assert equal_rewards(TRLGRPO(samples=samples, double=False), 0.9) == pytest.approx(rounding / EPSILON, rel=1e-2)
