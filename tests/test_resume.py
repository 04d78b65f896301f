"""A run killed in the middle and resumed ends with bitwise the same weights."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_rl.algorithms import RLOO
from lit_rl.callbacks import IterationCheckpoint
from lit_rl.errors import UsageError

RUN = """
import os, signal, sys
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lit_rl.algorithms import GRPO, PPO
from lit_rl.callbacks import GradientVariance, RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.tasks import GSM8KStyle

torch.set_num_threads(1)
out, kill, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None

class Kill(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == kill and args[-1] == 1:
            os.kill(os.getpid(), signal.SIGKILL)

seed_everything(len(out))  # nothing may depend on the global generators
options = {**TRAINER_DEFAULTS, "max_epochs": 6, "check_val_every_n_epoch": 2, "logger": False}
data = RolloutDataModule(
    GSM8KStyle(train_size=64, val_size=8), prompts_per_iteration=4, rows_per_microbatch=4, eval_prompts=4, seed=0
)
settings = {"max_new_tokens": 48, "warmup_steps": 12, "kl_coefficient": 0.01, "kl": "k3_loss"}
model = {
    "GRPO": lambda: GRPO(**settings),
    "PPO": lambda: PPO(samples=4, critic_pretraining=4, pretraining_passes=2, **settings),
}[sys.argv[4]]()
checkpoints = ModelCheckpoint(dirpath=out, save_on_train_epoch_end=True, every_n_epochs=1, save_last=True)
trainer = Trainer(
    **{**options, "accumulate_grad_batches": 2, "enable_progress_bar": False, "accelerator": "cpu"},
    callbacks=[RewardCallback(lambda e, ids, t: float(ids.sum() % 7)), GradientVariance(2), checkpoints, Kill()],
)
trainer.fit(model, datamodule=data, ckpt_path=resume)
torch.save({"weights": model.state_dict(), "generated": data.generated}, out + "/end.pt")
"""


def run(out, algorithm, kill=-1, resume=""):
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-c", RUN, str(out), str(kill), str(resume), algorithm]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("algorithm, killed_in", [("GRPO", 2), ("PPO", 3)])
def test_resume_is_bitwise(tmp_path, algorithm, killed_in):
    """Killed by SIGKILL in the middle of an iteration: right after a validation, while a critic is pretrained."""
    assert run(tmp_path / "whole", algorithm).returncode == 0
    assert run(tmp_path / "killed", algorithm, kill=killed_in).returncode == -signal.SIGKILL
    assert not os.path.exists(tmp_path / "killed" / "end.pt")
    resumed = run(tmp_path / "killed", algorithm, resume=tmp_path / "killed" / "last.ckpt")
    assert resumed.returncode == 0, resumed.stderr
    whole, again = (torch.load(tmp_path / name / "end.pt") for name in ("whole", "killed"))
    assert whole["generated"] == again["generated"]
    assert all(torch.equal(weights, again["weights"][key]) for key, weights in whole["weights"].items())


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


def test_checkpoint_holds_the_policy_once_and_no_reference(fit, tmp_path):
    trainer, algorithm, _ = fit(RLOO, trainer={"enable_checkpointing": True})
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert len(state) == len(algorithm.policy.state_dict()) and all(key.startswith("policy.") for key in state)
