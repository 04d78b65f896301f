"""A run killed in the middle and resumed ends with bitwise the same weights."""

import signal
import subprocess
import sys

import interrupted
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_rl.algorithms import PPO, RLOO
from lit_rl.callbacks import IterationCheckpoint
from lit_rl.errors import UsageError


@pytest.mark.parametrize("algorithm, killed_in", [("GRPO", 2), ("PPO", 3), ("TRePO", 3)])
def test_resume_is_bitwise(tmp_path, algorithm, killed_in):
    """Killed in the middle of an iteration: behind a validation, with SGD's momentum; in a critic's pretraining; in
    games of several turns, with continuations from the turns."""
    command = [sys.executable, interrupted.__file__, str(tmp_path / "killed"), algorithm, str(killed_in)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    last = tmp_path / "killed" / "last.ckpt"
    weights, generated = interrupted.run(str(tmp_path / "resumed"), algorithm, resume=str(last))
    whole, all_tokens = interrupted.run(str(tmp_path / "whole"), algorithm)
    assert generated == all_tokens
    assert all(torch.equal(value, weights[key]) for key, value in whole.items())


@pytest.mark.parametrize("iterations", [1, 3, 4, 5])
def test_the_last_iteration_is_always_saved(fit, tmp_path, iterations):
    saved = IterationCheckpoint(dirpath=tmp_path, save_on_train_epoch_end=True, every_n_epochs=2, save_last=True)
    _, algorithm, _ = fit(RLOO, iterations=iterations, callbacks=(saved,), trainer={"enable_checkpointing": True})
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] == iterations
    for name, value in algorithm.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][name], value)


def test_a_checkpoint_from_within_an_iteration_is_refused(fit, tmp_path):
    middle = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, filename="middle", save_top_k=-1)
    _, algorithm, _ = fit(RLOO, iterations=1, callbacks=(middle,), trainer={"enable_checkpointing": True})
    checkpoint = torch.load(sorted(tmp_path.glob("middle*.ckpt"))[0], weights_only=True)
    with pytest.raises(UsageError, match="ckpt_path"):
        algorithm.on_load_checkpoint(checkpoint)


def test_a_checkpoint_of_another_algorithm_is_refused(fit, tmp_path):
    trainer, _, _ = fit(RLOO, trainer={"enable_checkpointing": True})
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match="ckpt_path: the checkpoint is of another algorithm or model"):
        trainer.validate(PPO(), datamodule=trainer.datamodule, ckpt_path=tmp_path / "x.ckpt")


def test_checkpoint_holds_the_policy_once_and_no_reference(fit, tmp_path):
    trainer, algorithm, _ = fit(RLOO, trainer={"enable_checkpointing": True})
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert len(state) == len(algorithm.policy.state_dict()) and all(key.startswith("policy.") for key in state)
