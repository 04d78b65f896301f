"""The signatures of failure, each provoked beside a healthy twin; and that looking for them changes nothing."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from scipy import stats

from lit_rl.algorithms import GRPO, PPO, REINFORCE, RLOO, Algorithm, REINFORCEPlusPlus, ReMax, Supervised, TRePO
from lit_rl.algorithms.gradients import group_gradients
from lit_rl.callbacks import Diagnostics, RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Stride
from lit_rl.policy import TabularPolicy, TokenTransformer
from lit_rl.sampling import SamplingPlan
from lit_rl.tasks import Additive, KeyToken

LENGTH = 6


def train(make, task, *callbacks, iterations=1, prompts=16, policy=TabularPolicy, resume=None, score=None, **kw):
    """A run on bare tokens; returns its last metrics, the algorithm and the data module."""
    seed_everything(0, verbose=False)
    algorithm = make(policy=policy(4, LENGTH), max_new_tokens=LENGTH, warmup_steps=0, **{"learning_rate": 0.0, **kw})
    data = RolloutDataModule(task, prompts_per_iteration=prompts, rows_per_microbatch=prompts, seed=0)
    options = {**TRAINER_DEFAULTS, "max_epochs": iterations, "limit_val_batches": 0, "logger": False}
    options |= {"enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    reward = score if isinstance(score, RewardCallback) else RewardCallback(score)
    trainer = Trainer(**options, callbacks=[reward, *callbacks])
    trainer.fit(algorithm, datamodule=data, ckpt_path=resume)
    return {name: float(x) for name, x in trainer.callback_metrics.items()}, algorithm, data


def diagnosed(make, task, iterations=1, settings=None, **kw):
    metrics, *_ = train(make, task, Diagnostics(**(settings or {})), iterations=iterations, **kw)
    return {name.removeprefix("diagnostic/"): x for name, x in metrics.items() if name.startswith("diagnostic/")}


def lines(capsys, signature):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"lit_rl: {signature}")]


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


# ---- collapse -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate, flag", [(0.03, 1), (1e-4, 0)])
def test_a_huge_learning_rate_collapses(learning_rate, flag, capsys):
    options = {"policy": TokenTransformer, "samples": 4, "iterations": 8, "settings": {"kl_window": 3}}
    found = diagnosed(REINFORCE, Additive(4, LENGTH), learning_rate=learning_rate, **options)
    assert found["flag/kl_collapse"] == flag == len(lines(capsys, "kl_collapse"))
    if flag:
        assert found["entropy_ratio"] < 0.3 and found["distinct"] < 0.5
    else:
        assert found["entropy_ratio"] > 0.8 and found["distinct"] > 0.9 and abs(found["kl_slope"]) < 0.1


class Signs(Callback):
    """Gives the rollouts of each iteration an entropy and a KL."""

    def __init__(self, entropy=(1.0,) * 5, kl=(0.0,) * 5):
        self.entropy, self.kl = entropy, kl

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not batch_idx:
            rollouts, i = trainer.datamodule.rollouts, trainer.current_epoch
            rollouts.entropy = torch.full_like(rollouts.entropy, self.entropy[i])
            rollouts.reference_logprobs = rollouts.old_logprobs - self.kl[i] / LENGTH


@pytest.mark.parametrize(
    "signs, flag",
    [
        ({}, 0),
        ({"entropy": (2.0, 1.5, 1.0, 0.7, 0.4)}, 0),  # one sign alone
        ({"entropy": (2.0, 1.5, 1.0, 0.7, 0.4), "kl": (0.0, 1.0, 5.0, 8.0, 13.0)}, 1),
        ({"entropy": (2.0, 1.5, 1.0, 0.7, 0.7), "kl": (0.0, 1.0, 5.0, 8.0, 13.0)}, 0),
    ],
)
def test_two_signs_at_once_are_a_collapse(signs, flag, capsys):
    made = Signs(**signs)
    metrics, *_ = train(RLOO, Additive(4, LENGTH), made, Diagnostics(kl_window=4), iterations=5)
    assert metrics["diagnostic/entropy_ratio"] == pytest.approx(made.entropy[4] / made.entropy[0])
    assert metrics["diagnostic/kl_slope"] == pytest.approx(np.polyfit(range(1, 5), made.kl[1:], 1)[0], abs=1e-4)
    assert metrics["diagnostic/flag/kl_collapse"] == flag == len(lines(capsys, "kl_collapse"))


class Solved(Callback):
    """From the second iteration on every policy samples the same; the reward is that of ``after``."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        rollouts = trainer.datamodule.rollouts
        if not batch_idx and trainer.current_epoch:
            rollouts.entropy = torch.full_like(rollouts.entropy, 0.01)
            rollouts.response_ids = torch.zeros_like(rollouts.response_ids)


class Learned(RewardCallback):
    """What it says counts as a reward model's."""

    def score(self, *args):
        self.reward_model = None
        rewards = super().score(*args)
        self.reward_model = self
        return rewards


@pytest.mark.parametrize(
    "after, flag, reward",
    [
        *[(0.0, 1, RewardCallback), (1.0, 0, RewardCallback), (2.0, 0, RewardCallback), (0.5, 1, RewardCallback)],
        (1.0, 1, Learned),
    ],
)
def test_success_is_no_failure(after, flag, reward, capsys):
    """Without variety and without advantages: a policy that always gets the best reward is done, any other is lost."""
    calls = []

    def score(example, ids, text):
        calls.append(0)
        return float(ids[0] == 1) if len(calls) <= 64 else after

    options = {"iterations": 2, "samples": 4, "score": reward(score)}
    metrics, *_ = train(RLOO, KeyToken(4, LENGTH), Solved(), Diagnostics(), **options)
    found = {name.removeprefix("diagnostic/"): x for name, x in metrics.items()}
    assert found["zero_advantage"] == 1 and found["stuck"] == flag
    assert found["flag/kl_collapse"] == found["flag/poor_baseline"] == flag
    assert len(capsys.readouterr().err.splitlines()) == 2 * flag
    if flag:
        assert found["entropy_ratio"] < 0.1 and found["distinct"] == 0.25
    else:
        assert found["entropy_ratio"] == found["distinct"] == 1


def test_solved_groups_count_as_unchanged():
    """A quarter of the responses is right: with one response a prompt, a quarter of the groups is solved."""
    task, entropy = KeyToken(4, LENGTH), (2.0, 0.2)
    options = {"prompts": 64, "iterations": 2}
    metrics, _, data = train(REINFORCE, task, Signs(entropy=entropy), Diagnostics(), **options)
    solved = float((data.rollouts.rewards == 1).float().mean())
    assert metrics["diagnostic/entropy_ratio"] == pytest.approx(solved + (1 - solved) * 0.1) and 0.1 < solved < 0.4
    assert metrics["diagnostic/stuck"] == metrics["diagnostic/zero_advantage"] == pytest.approx(1 - solved)


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


def test_clip_fraction_is_that_of_the_iteration_before():
    options = {"passes": 4, "learning_rate": 0.1}
    first, *_ = train(GRPO, Additive(4, LENGTH), **options)
    found = diagnosed(GRPO, Additive(4, LENGTH), iterations=2, **options)
    assert found["clip_fraction"] == first["policy/clip_fraction"] > 0


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
