"""The accuracy of values against the exact ones of an enumerated task."""

import pytest
import torch
from scipy.stats import kendalltau
from torch import tensor

from lit_rl.algorithms import PPO, RLOO, TRePO
from lit_rl.callbacks import RewardCallback, ValueAccuracy
from lit_rl.callbacks.value_accuracy import estimates
from lit_rl.errors import UsageError
from lit_rl.exact.tree import grow
from lit_rl.functional.cuts import Stride
from lit_rl.functional.diagnostics import ordered_right
from lit_rl.tasks.position_credit import Additive
from tests.training import train

TASK = Additive(3, 4)
TREPO = {"samples": 4, "cuts": Stride(1), "continuations": 2}


class Kept(ValueAccuracy):
    """Keeps what it compares."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.rollouts = trainer.datamodule.rollouts
        self.tree = grow(pl_module.policy, TASK)

    def _truth(self, *args):
        self.true = super()._truth(*args)
        return self.true


@pytest.mark.parametrize(("algorithm", "settings"), [(TRePO, TREPO), (PPO, {"samples": 4})], ids=["TRePO", "PPO"])
def test_the_truth_and_the_errors_are_those_of_the_tree(algorithm, settings):
    callback = Kept(1, prompts=4, stride=1, continuations=256, margin=0.05)
    found = train(algorithm, TASK, 1, callbacks=(callback,), learning_rate=0.0, **settings)
    rollouts, n = callback.rollouts, 16
    samples = rollouts.select(torch.arange(n))
    exact = callback.tree.along(callback.tree.v, samples.response_ids, samples.lengths)
    true = callback.true
    assert true[:, 1:].isfinite().all() and true[:, 0].isnan().all()  # the prompt is no prefix that is measured
    assert (true - exact)[:, 1:].abs().max() < 5 / 2 / 256**0.5
    guess = estimates(rollouts)[:n]
    for t in (1, 2, 3):
        error = (guess - exact)[:, t].abs().mean()
        assert float(found[f"value_accuracy/mae/{t}"]) == pytest.approx(float(error), abs=0.04)
    assert "value_accuracy/mae/0" not in found and 0 < float(found["value_accuracy/ranking"]) <= 1


def test_measuring_changes_nothing_and_waits_for_a_critic():
    with_ = train(TRePO, TASK, 2, callbacks=(ValueAccuracy(1, 2, 2, 8),), **TREPO)
    without = train(TRePO, TASK, 2, **TREPO)
    assert all(with_[name] == without[name] for name in ("train/reward", "policy/entropy", "tokens/generated"))
    waiting = train(PPO, TASK, 1, callbacks=(ValueAccuracy(1, 2, 2, 8),), critic_pretraining=3)
    assert not any(name.startswith("value_accuracy") for name in waiting)


def test_the_truth_has_other_continuations_than_the_estimate():
    callback = Kept(1, prompts=2, stride=1, continuations=2)
    train(TRePO, TASK, 1, callbacks=(callback,), **TREPO)
    own = estimates(callback.rollouts)[:8]
    assert (own[:, 1:] != callback.true[:, 1:]).float().mean() > 0.5


class Recorded(RewardCallback):
    """Keeps what an iteration earned, and what the last rows that were drawn beside it did."""

    def on_train_epoch_start(self, trainer, pl_module):
        super().on_train_epoch_start(trainer, pl_module)
        self.trained = trainer.datamodule.rollouts

    def rewards(self, trainer, pl_module, rollouts):
        self.again, self.earned = rollouts, super().rewards(trainer, pl_module, rollouts)
        return self.earned


def test_the_truth_is_penalized_as_what_is_trained_on():
    reward, task = Recorded(overlong=2), Additive(3, 4, eos=True)
    train(TRePO, task, 1, callbacks=(reward, ValueAccuracy(1, 4, 1, 2)), **TREPO)
    ids, lengths = reward.trained.response_ids[:16], reward.trained.lengths[:16]
    assert torch.equal(ids, reward.again.response_ids[:16, : ids.shape[1]])
    assert torch.equal(reward.trained.rewards[:16], reward.earned[:16])
    assert (reward.earned[:16] < task.returns(ids, lengths)).any()


def test_prompts_that_are_replaced_cannot_be_drawn_again(fit):
    with pytest.raises(UsageError, match=r"data\.resample or data\.hints"):
        fit(RLOO, callbacks=(ValueAccuracy(1, stride=1),), data={"resample": 1}, samples=2)


def test_pairs_in_order_are_kendalls():
    generator = torch.Generator().manual_seed(0)
    guess, truth = torch.rand(12, generator=generator), torch.rand(12, generator=generator)
    order = ordered_right(guess, truth, torch.zeros(12), 0.0)
    assert 2 * float(order.mean()) - 1 == pytest.approx(kendalltau(guess, truth).statistic)
    split = ordered_right(tensor([1.0, 1.0, 0.0]), tensor([0.0, 1.0, 0.5]), tensor([0, 0, 1]), 0.1)
    assert split.tolist() == [0.5]  # one pair shares a prompt, and its guesses are equal
    assert len(ordered_right(guess, truth, torch.zeros(12), 1.0)) == 0


def test_settings_are_checked():
    with pytest.raises(UsageError, match="RLOO has no values of prefixes"):
        train(RLOO, TASK, 1, callbacks=(ValueAccuracy(1, stride=1),))
    for setting in ({"every_n_iterations": -1}, {"stride": 0}, {"margin": 1.0}):
        with pytest.raises(UsageError, match=f"value_accuracy.{next(iter(setting))} is"):
            ValueAccuracy(**setting)
