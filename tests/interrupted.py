"""A run that can be killed in the middle of an iteration: interrupted.py FOLDER ALGORITHM ITERATION."""

import os
import signal
import sys
from functools import partial

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD

from lit_rl.algorithms import GRPO, PPO, TRePO
from lit_rl.callbacks import Budget, GradientVariance, RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.functional.cuts import Turns
from lit_rl.policy import CausalPolicy
from lit_rl.tasks import GSM8KStyle, GuessNumber


class Kill(Callback):
    def __init__(self, iteration: int | None) -> None:
        self.iteration = iteration

    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == self.iteration and args[-1] == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: str, algorithm: str, killed_in: int | None = None, resume: str | None = None) -> tuple[dict, int]:
    """Six iterations with checkpoints in ``folder``; returns weights and generated tokens."""
    seed_everything(len(folder), verbose=False)  # nothing may depend on the global generators
    options = {**TRAINER_DEFAULTS, "max_epochs": 6, "check_val_every_n_epoch": 2, "logger": False}
    turns = algorithm == "TRePO"
    task = (GuessNumber if turns else GSM8KStyle)(train_size=64, val_size=8)
    data = RolloutDataModule(task, prompts_per_iteration=4, rows_per_microbatch=4, eval_prompts=4, seed=0)
    settings = {"max_new_tokens": 48, "warmup_steps": 12, "kl_coefficient": 0.01, "kl": "k3_loss"}
    model = {
        "GRPO": lambda: GRPO(schedule="linear", optimizer=partial(SGD, momentum=0.9), **settings),
        "TRePO": lambda: TRePO(policy=CausalPolicy("embedded-turns"), cuts=Turns(), **settings),
        "PPO": lambda: PPO(samples=4, critic_pretraining=4, pretraining_passes=2, schedule="cosine", **settings),
    }[algorithm]()
    checkpoints = ModelCheckpoint(dirpath=folder, save_on_train_epoch_end=True, every_n_epochs=1, save_last=True)
    reward = RewardCallback() if turns else RewardCallback(lambda e, ids, t: float(ids.sum() % 7))
    trainer = Trainer(
        **{**options, "accumulate_grad_batches": 2, "enable_progress_bar": False, "accelerator": "cpu"},
        callbacks=[reward, GradientVariance(2), Budget(generated_tokens=10**4), checkpoints, Kill(killed_in)],
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return model.state_dict(), data.generated


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
