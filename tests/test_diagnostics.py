"""The signatures of failure, each provoked beside a healthy twin; and that looking for them changes nothing."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from diagnosing import LENGTH, diagnosed, lines, train
from lightning import Callback
from scipy import stats

from lit_rl.algorithms import GRPO, PPO, REINFORCE, RLOO, Algorithm, REINFORCEPlusPlus, ReMax, Supervised, TRePO
from lit_rl.algorithms.gradients import group_gradients
from lit_rl.callbacks import Diagnostics
from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Stride
from lit_rl.policy import TokenTransformer
from lit_rl.sampling import SamplingPlan
from lit_rl.tasks import Additive, KeyToken

# ---- the critic -----------------------------------------------------------------------------------------------------


class Valued(RLOO):
    """RLOO that also writes down the exact values of KeyToken under the uniform policy, shifted and turned."""

    offset, sign = 0.0, 1.0

    def prepare(self, rollouts, rows):
        super().prepare(rollouts, rows)
        t = torch.arange(LENGTH)
        returns = rollouts.rewards[:, None].expand(-1, LENGTH)
        exact = torch.where(t <= 1, 0.25, returns)  # the key token stands at 1
        rollouts.values, rollouts.value_targets = 0.25 + self.sign * (exact - 0.25) + self.offset, returns


class Shifted(Valued):
    offset = 2.5


class Turned(Valued):
    sign = -1.0


def test_a_critic_that_knows_the_values_is_silent(capsys):
    found = diagnosed(Valued, KeyToken(4, LENGTH, position=1), samples=4, prompts=64)
    assert found["flag/critic_initialisation"] == 0 and not lines(capsys, "")
    assert [found[f"explained_variance_{x}"] for x in ("early", "middle", "late")] == pytest.approx([0, 1, 1])
    assert found["explained_variance"] == pytest.approx(2 / 3, abs=0.01) and abs(found["value_bias"]) < 0.2
    assert found["value_slope_late"] == pytest.approx(1) and "value_slope_early" not in found


@pytest.mark.parametrize("critic, sign", [(Shifted, "value_bias"), (Turned, "explained_variance")])
def test_a_critic_that_is_wrong_is_named_once(critic, sign, capsys):
    found = diagnosed(critic, KeyToken(4, LENGTH, position=1), samples=4, prompts=64, iterations=3)
    assert found["flag/critic_initialisation"] == 1 and found["value_slope_late"] == pytest.approx(critic.sign)
    (line,) = lines(capsys, "critic_initialisation")
    assert f"in iteration 1: {sign}" in line and "(limit" in line and "Try: " in line


def test_without_values_nothing_is_said_of_a_critic():
    assert not [name for name in diagnosed(RLOO, KeyToken(4, LENGTH)) if "critic" in name or "value" in name]


# ---- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k, flag", [(1, 1), (2, 1), (8, 0)])
def test_values_of_few_continuations_are_noise(k, flag, capsys):
    """Where the last token decides, a cut's continuations differ as much as the samples: the error is 1 / K.

    The response that was cut is one more draw from the cut, so that the error of a single continuation is known, too.
    """
    task = KeyToken(4, LENGTH, position=LENGTH - 1)
    metrics, _, data = train(TRePO, task, Diagnostics(), samples=4, cuts=Stride(2), continuations=k)
    rollouts = data.rollouts
    forked = [(int(o), int(c), r) for o, c, r in zip(rollouts.origin, rollouts.cut, rollouts.rewards, strict=True)]
    cuts = sorted({x[:2] for x in forked if x[0] >= 0})
    drawn = [[float(rollouts.rewards[o]), *(float(r) for *at, r in forked if (o, c) == tuple(at))] for o, c in cuts]
    own = rollouts.rewards[rollouts.origin < 0].double().numpy()
    assert {len(each) for each in drawn} == {k + 1}
    error = np.mean([np.var(each, ddof=1) for each in drawn]) / k
    assert metrics["diagnostic/cut_error"] == pytest.approx(error / own.var(ddof=1))
    assert metrics["diagnostic/group_error"] == pytest.approx(
        (stats.sem(own.reshape(-1, 4), axis=1) ** 2).mean() / own.var(ddof=1)
    )
    assert 0.6 < k * metrics["diagnostic/cut_error"] < 1.4
    assert metrics["diagnostic/flag/insufficient_sampling"] == flag == len(lines(capsys, "insufficient_sampling"))


def test_cuts_behind_the_key_token_are_reliable():
    task = KeyToken(4, LENGTH, position=1)
    found = diagnosed(TRePO, task, samples=4, cuts=Stride(2), continuations=2)
    assert found["cut_reliability"] == pytest.approx(1) and found["cut_error"] == 0


@pytest.mark.parametrize("samples, flag", [(2, 1), (8, 0)])
def test_the_mean_of_a_small_group_is_noise(samples, flag):
    found = diagnosed(RLOO, Additive(4, LENGTH), samples=samples)
    assert found["flag/insufficient_sampling"] == flag and abs(found["group_error"] - 1 / samples) < 0.15


# ---- the baseline ---------------------------------------------------------------------------------------------------

PROBES = {"probe_every_n_iterations": 1, "probe_prompts": 16}


def test_no_baseline_is_named_and_a_good_one_is_not(capsys):
    task = Additive(4, LENGTH)
    bare, good = diagnosed(REINFORCE, task, settings=PROBES), diagnosed(RLOO, task, settings=PROBES, samples=8)
    assert bare["trace_ratio"] > 5 and bare["flag/poor_baseline"] == 1
    assert good["trace_ratio"] < 1.5 and good["flag/poor_baseline"] == 0
    assert len(lines(capsys, "poor_baseline")) == 1
    assert good["probe_tokens"] == bare["probe_tokens"] == 16 * 16 * LENGTH
    assert "zero_advantage_expected" not in bare


@pytest.mark.parametrize("algorithm", [GRPO, TRePO])
def test_trace_ratio_is_numpys(algorithm):
    """The probes are drawn a second time, and the covariances worked out from the groups' gradients."""
    seen = {}

    class Again(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx:
                return
            data, plan = trainer.datamodule, SamplingPlan(16, max_new_tokens=LENGTH)
            probes, rollouts = data.probe(pl_module.policy, plan, 8), data.rollouts
            rewards = data.task.returns(probes.response_ids, probes.lengths).float().reshape(8, 16)
            better = rollouts.rewards - rewards.mean(1)[rollouts.group % 8]
            if algorithm is GRPO:
                better /= rewards.std(1)[rollouts.group % 8]
            tables = rollouts, replace(rollouts, advantages=better[:, None] * rollouts.mask)
            own, best = (np.stack([g.numpy() for g in group_gradients(pl_module, x, 8)]) for x in tables)
            seen["ratio"] = np.trace(np.cov(own.T)) / np.trace(np.cov(best.T))

    settings = {"probe_every_n_iterations": 1, "probe_prompts": 8}
    metrics, *_ = train(algorithm, Additive(4, LENGTH), Diagnostics(**settings), Again())
    assert metrics["diagnostic/trace_ratio"] == pytest.approx(seen["ratio"], rel=1e-3)


@pytest.mark.parametrize(
    ("make", "measured"),
    [
        (REINFORCEPlusPlus, False),
        (partial(PPO, critic=None, whiten=True), False),
        (partial(PPO, critic=None), True),
    ],
    ids=["REINFORCE++", "whitened", "PPO"],
)
def test_gradients_in_other_units_are_not_compared(make, measured):
    found = diagnosed(make, Additive(4, LENGTH), settings=PROBES, samples=2)
    assert ("trace_ratio" in found) == measured and "probe_tokens" in found


def test_groups_that_teach_nothing_are_named_and_expected(capsys):
    """What one response in 27 does leaves groups of two alike; what one in 4 does, groups of four seldom."""
    rare = lambda example, ids, text: float((ids == 1).sum() >= 4)
    seldom, *_ = train(RLOO, KeyToken(4, LENGTH), Diagnostics(**PROBES), score=rare, samples=2, prompts=64)
    often = diagnosed(RLOO, KeyToken(4, LENGTH), settings=PROBES, samples=4, prompts=64)
    p = stats.binom.sf(3, LENGTH, 0.25)
    assert seldom["diagnostic/stuck"] > 0.8 and seldom["diagnostic/flag/poor_baseline"] == 1
    assert abs(seldom["diagnostic/zero_advantage_expected"] - (p**2 + (1 - p) ** 2)) < 0.05
    assert often["flag/poor_baseline"] == 0 and abs(often["zero_advantage"] - (0.25**4 + 0.75**4)) < 0.15
    assert abs(often["zero_advantage_expected"] - (0.25**4 + 0.75**4)) < 0.1
    assert len(lines(capsys, "poor_baseline")) == 1


def test_probes_of_fewer_responses_than_samples_are_refused():
    settings = {"probe_every_n_iterations": 1, "probe_samples": 3}
    with pytest.raises(UsageError, match="diagnostics.probe_samples is 3"):
        diagnosed(RLOO, KeyToken(4, LENGTH), settings=settings, samples=4)
    diagnosed(RLOO, KeyToken(4, LENGTH), settings={**settings, "every_n_iterations": 0}, samples=4)


def test_near_success_the_yardstick_is_that_of_before():
    """Rewards that hardly differ any more make neither a critic nor a baseline bad."""
    spreads = []

    class Spread(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            spreads.append(float(trainer.datamodule.rollouts.value_targets.double().std(correction=0)))

    def score(example, ids, text):
        earned = float(ids[1] == 1)
        return 1 + earned / 1000 if spreads else earned

    options = {"iterations": 2, "samples": 4, "prompts": 64, "score": score}
    metrics, _, data = train(Valued, KeyToken(4, LENGTH, position=1), Diagnostics(**PROBES), Spread(), **options)
    off = (data.rollouts.values - data.rollouts.value_targets).double().mean()
    assert metrics["diagnostic/value_bias"] == pytest.approx(float(off) / spreads[0], rel=1e-3)
    assert spreads[1] < spreads[0] / 500 and abs(metrics["diagnostic/value_bias"]) < 1
    assert metrics["diagnostic/trace_ratio"] < 1e-4


# ---- an observer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [RLOO, ReMax, TRePO])
def test_watching_changes_nothing(algorithm):
    def end(*callbacks):
        options = {"iterations": 2, "prompts": 8, "policy": TokenTransformer, "learning_rate": 1e-3}
        _, trained, data = train(algorithm, Additive(4, LENGTH), *callbacks, **options)
        return trained.policy.state_dict(), data.rollouts.response_ids, data.generated, torch.rand(3)

    watched, alone = end(Diagnostics(**PROBES)), end()
    assert all(torch.equal(watched[0][key], alone[0][key]) for key in alone[0])
    assert torch.equal(watched[1], alone[1]) and watched[2] == alone[2] and torch.equal(watched[3], alone[3])


class Keep(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_keeps_its_start(tmp_path):
    path = tmp_path / "second.ckpt"
    options = {"iterations": 4, "prompts": 4, "policy": TokenTransformer, "learning_rate": 3e-3}
    settings = {"kl_window": 3, **PROBES}
    whole, *_ = train(RLOO, Additive(4, LENGTH), Diagnostics(**settings), Keep(path), **options)
    resumed, *_ = train(RLOO, Additive(4, LENGTH), Diagnostics(**settings), resume=path, **options)
    names = {name for name in whole if name.startswith("diagnostic/")}
    assert {"diagnostic/entropy_ratio", "diagnostic/kl_slope", "diagnostic/probe_tokens"} <= names
    assert {name: resumed[name] for name in names} == {name: whole[name] for name in names}
    assert whole["diagnostic/entropy_ratio"] != 1 and torch.load(path, weights_only=True)


def test_off_is_off_and_demonstrations_are_left_alone(fit):
    assert not diagnosed(RLOO, KeyToken(4, LENGTH), settings={"every_n_iterations": 0})
    trainer, *_ = fit(Supervised, callbacks=(Diagnostics(),))
    assert not [name for name in trainer.callback_metrics if name.startswith("diagnostic")]


def test_rewards_without_spread_are_no_noise():
    found, *_ = train(RLOO, KeyToken(4, LENGTH), Diagnostics(), score=lambda *row: 0.1)
    assert (
        "diagnostic/group_error" not in found and found["diagnostic/zero_advantage"] == found["diagnostic/stuck"] == 1
    )


def test_an_algorithm_that_measures_no_entropy_is_taken():
    class Bare(REINFORCE):
        def prepare(self, rollouts, rows):
            Algorithm.prepare(self, rollouts, rows)
            rollouts.entropy = rollouts.reference_logprobs = None

    found = diagnosed(Bare, KeyToken(4, LENGTH))
    assert "length_ratio" in found and "entropy_ratio" not in found
