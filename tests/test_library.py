"""lit_rl as a library: Lightning's Trainer, its loggers and checkpoints, and objects that serve several runs."""

import csv

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lit_rl.algorithms import RLOO
from lit_rl.callbacks import Budget, Diagnostics, RewardCallback
from lit_rl.data import RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.policy import TokenTransformer
from lit_rl.tasks import KeyToken

TASK = KeyToken(vocabulary=4, length=5)


def policy():
    torch.manual_seed(0)
    return TokenTransformer(4, 5, hidden_size=16, layers=1)


def rloo():
    return RLOO(policy=policy(), samples=2, max_new_tokens=5)


def rollouts():
    return RolloutDataModule(TASK, prompts_per_iteration=4, rows_per_microbatch=4, eval_prompts=8)


def trainer(*callbacks, **flags):
    """With Lightning's defaults, where nothing else is said."""
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 4, "reload_dataloaders_every_n_epochs": 1, "logger": False, "enable_checkpointing": False}
    return Trainer(**{**quiet, **options, **flags}, callbacks=[RewardCallback(), *callbacks])


def weights(algorithm):
    return torch.cat([x.detach().flatten() for x in algorithm.parameters()])


@pytest.fixture(scope="module")
def at_once():
    """Weights after four iterations, undisturbed."""
    algorithm = rloo()
    trainer().fit(algorithm, datamodule=rollouts())
    return weights(algorithm)


def test_any_logger_has_a_row_an_iteration(tmp_path, at_once):
    algorithm, logger = rloo(), CSVLogger(tmp_path)
    trainer(logger=logger).fit(algorithm, datamodule=rollouts())
    with open(f"{logger.log_dir}/metrics.csv") as file:
        rewards = {int(row["step"]): float(row["train/reward"]) for row in csv.DictReader(file) if row["train/reward"]}
    assert list(rewards) == [1, 2, 3, 4] and all(0 <= x <= 1 for x in rewards.values())
    assert torch.equal(weights(algorithm), at_once)


def test_a_trainer_without_a_reward_callback_is_told_before_anything_is_sampled():
    data = rollouts()
    with pytest.raises(UsageError, match=r"callbacks=\[RewardCallback\(\)\]"):
        Trainer(reload_dataloaders_every_n_epochs=1, logger=False, accelerator="cpu").fit(rloo(), datamodule=data)
    assert not hasattr(data, "rollouts")


@pytest.mark.parametrize("run", [Trainer.fit, Trainer.validate, Trainer.test], ids=lambda run: run.__name__)
def test_a_missing_data_module_is_named(run):
    with pytest.raises(UsageError, match="RolloutDataModule as `datamodule`"):
        run(trainer(), rloo())


def test_evaluation_in_between_changes_nothing(at_once):
    algorithm, data = rloo(), rollouts()
    (before,) = trainer().validate(algorithm, datamodule=data, verbose=False)
    running = trainer()
    running.fit(algorithm, datamodule=data)
    assert torch.equal(weights(algorithm), at_once)
    (again,), (other,) = (each.validate(algorithm, datamodule=data, verbose=False) for each in (running, trainer()))
    assert {**again, "step": 0} == other
    (tested,) = running.test(algorithm, datamodule=data, verbose=False)
    assert before["step"] == 0 and tested["step"] == 4 and 0 <= tested["test/accuracy_sampled"] <= 1


def test_a_trainers_second_fit_goes_on_with_the_iterations():
    """As always in Lightning, with a new optimizer: only a checkpoint goes on exactly."""
    algorithm, data = rloo(), rollouts()
    running = trainer(max_epochs=2)
    running.fit(algorithm, datamodule=data)
    assert data.generated == 2 * 4 * 2 * TASK.length
    running.fit_loop.max_epochs = 4
    running.fit(algorithm, datamodule=data)
    assert running.current_epoch == 4 and data.generated == 4 * 4 * 2 * TASK.length


def test_objects_that_serve_a_second_run_begin_anew():
    def objects():
        return rollouts(), [Budget(generated_tokens=3 * 4 * 2 * TASK.length, seconds=3600), Diagnostics()]

    def run(algorithm, data, callbacks):
        running = trainer(*callbacks, max_epochs=9)
        running.fit(algorithm, datamodule=data)
        metrics = {name: float(x) for name, x in running.callback_metrics.items() if not name.startswith("time/")}
        return running.current_epoch, data.generated, metrics, weights(algorithm).tolist()

    served = objects()
    other = RLOO(policy=TokenTransformer(4, 5, hidden_size=16, layers=1), samples=3, max_new_tokens=5)
    run(other, *served)
    served[1][0].load_state_dict({"spent": 3601.0})
    again, fresh = run(rloo(), *served), run(rloo(), *objects())
    assert again == fresh and fresh[0] == 3


@pytest.mark.parametrize("every", [1, 2])
def test_lightnings_checkpoints_go_on_to_the_bit(tmp_path, at_once, every):
    """Written after an iteration, or after the validation in which one ends."""
    flags = {"enable_checkpointing": True, "check_val_every_n_epoch": every}
    saved = ModelCheckpoint(tmp_path)
    algorithm = rloo()
    trainer(saved, max_epochs=2, **flags).fit(algorithm, datamodule=rollouts())
    loaded = RLOO.load_from_checkpoint(saved.best_model_path, policy=policy(), samples=2, max_new_tokens=5)
    assert torch.equal(weights(loaded), weights(algorithm))
    resumed, data = rloo(), rollouts()
    trainer(**flags).fit(resumed, datamodule=data, ckpt_path=saved.best_model_path)
    assert torch.equal(weights(resumed), at_once) and data.generated == 4 * 4 * 2 * TASK.length


def test_a_checkpoint_within_an_iteration_is_refused(tmp_path):
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1)
    trainer(saved, max_epochs=1, enable_checkpointing=True).fit(rloo(), datamodule=rollouts())
    with pytest.raises(UsageError, match=r"end of an iteration; .*every_n_epochs"):
        trainer().fit(rloo(), datamodule=rollouts(), ckpt_path=saved.best_model_path)


def test_the_best_checkpoint_is_tested(tmp_path):
    saved = ModelCheckpoint(tmp_path, monitor="train/reward", mode="max", save_on_train_epoch_end=True)
    running, data = trainer(saved, enable_checkpointing=True), rollouts()
    running.fit(rloo(), datamodule=data)
    found = running.test(ckpt_path="best", datamodule=data, verbose=False)
    best = rloo()
    best.load_state_dict(torch.load(saved.best_model_path, weights_only=True)["state_dict"])
    (expected,) = trainer().test(best, datamodule=data, verbose=False)
    assert {**found[0], "step": 0} == {**expected, "step": 0}
