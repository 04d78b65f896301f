"""A budget of tokens, a start from another run's policy, and rewards that say nothing."""

import pytest
import torch
from lightning import Callback

from lit_rl.algorithms import PPO, RLOO, ReMax
from lit_rl.callbacks import Budget, IterationCheckpoint, RewardCallback
from lit_rl.errors import UsageError


@pytest.mark.parametrize("algorithm", [RLOO, ReMax])
def test_a_run_ends_with_the_iteration_that_reaches_the_budget(fit, algorithm):
    _, _, free = fit(algorithm, iterations=1)
    one = free.generated  # the first iteration's, greedy probes included
    for budget, iterations in ((one - 1, 1), (one, 1), (one + 1, 2)):
        trainer, _, data = fit(algorithm, iterations=5, callbacks=(Budget(budget),))
        assert trainer.current_epoch == iterations and data.generated >= budget
    trainer, *_ = fit(algorithm, iterations=3, callbacks=(Budget(),))
    assert trainer.current_epoch == 3
    with pytest.raises(UsageError, match="budget.generated_tokens is 0"):
        Budget(0)


class Clock(Callback):
    """A clock on which an iteration takes 2 seconds and a validation 100."""

    def __init__(self):
        self.now = 1e6

    def on_train_epoch_start(self, trainer, pl_module):
        self.now += 2

    def on_validation_epoch_start(self, trainer, pl_module):
        self.now += 100


class Resumed(Budget):
    """One that a checkpoint says 3 seconds are spent of."""

    def on_fit_start(self, trainer, pl_module):
        self.load_state_dict({"spent": 3.0})
        super().on_fit_start(trainer, pl_module)


@pytest.mark.parametrize(("seconds", "iterations"), [(1.5, 1), (3.0, 2), (4.5, 3), (None, 5)])
def test_a_run_ends_when_its_seconds_are_spent_validation_left_out(fit, monkeypatch, seconds, iterations):
    clock = Clock()
    monkeypatch.setattr("lit_rl.callbacks.budget.time.perf_counter", lambda: clock.now)
    options = {"check_val_every_n_epoch": 1, "limit_val_batches": 1}
    trainer, *_ = fit(RLOO, iterations=5, callbacks=(clock, Budget(seconds=seconds)), trainer=options)
    assert trainer.current_epoch == iterations
    trainer, *_ = fit(RLOO, iterations=5, callbacks=(clock, Resumed(seconds=seconds)), trainer=options)
    assert trainer.current_epoch == (1 if seconds else 5)
    with pytest.raises(UsageError, match="budget.seconds is 0"):
        Budget(seconds=0)


def test_what_a_budget_ends_with_is_saved(fit, tmp_path):
    saved = IterationCheckpoint(dirpath=tmp_path, save_on_train_epoch_end=True, every_n_epochs=100, save_last=True)
    options = {"trainer": {"enable_checkpointing": True}}
    _, algorithm, _ = fit(RLOO, iterations=5, callbacks=(Budget(1), saved), **options)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in algorithm.state_dict().items())


def test_a_start_is_the_policy_of_a_checkpoint(fit, tmp_path):
    trainer, trained, _ = fit(RLOO, iterations=1, learning_rate=1e-2, trainer={"enable_checkpointing": True})
    path = tmp_path / "x.ckpt"
    trainer.save_checkpoint(path)
    started = PPO(start=str(path))
    assert started.policy.fingerprint == trained.policy.fingerprint != PPO().policy.fingerprint
    assert started.reference is not None and started.reference.fingerprint == trained.policy.fingerprint
    with pytest.raises(UsageError, match=r"model\.start: no file"):
        RLOO(start=str(tmp_path / "none.ckpt"))


class Rewards(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rewards = trainer.datamodule.rollouts.rewards.clone()


def test_shuffled_rewards_are_the_same_in_another_order(fit):
    seen = []
    for shuffle in (False, True, True):
        watch = Rewards()
        trainer, *_ = fit(RLOO, callbacks=(watch,), data={"prompts_per_iteration": 8})
        assert isinstance(trainer.callbacks[0], RewardCallback)
        trainer.callbacks[0].shuffle = shuffle
        trainer.fit_loop.max_epochs = 2
        trainer.fit(trainer.lightning_module, datamodule=trainer.datamodule)
        seen.append(watch.rewards)
    plain, shuffled, again = seen
    assert torch.equal(plain.sort().values, shuffled.sort().values) and torch.equal(shuffled, again)
    assert not torch.equal(plain, shuffled)
