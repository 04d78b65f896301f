"""The signs of a collapse: two at once are a warning, and success is none."""

import numpy as np
import pytest
import torch
from diagnosing import LENGTH, diagnosed, lines, train
from lightning import Callback

from lit_rl.algorithms import GRPO, REINFORCE, RLOO
from lit_rl.callbacks import Diagnostics, RewardCallback
from lit_rl.policy import TokenTransformer
from lit_rl.tasks import Additive, KeyToken


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


def test_clip_fraction_is_that_of_the_iteration_before():
    options = {"passes": 4, "learning_rate": 0.1}
    first, *_ = train(GRPO, Additive(4, LENGTH), **options)
    found = diagnosed(GRPO, Additive(4, LENGTH), iterations=2, **options)
    assert found["clip_fraction"] == first["policy/clip_fraction"] > 0
