"""Runs on bare tokens that are watched by the diagnostics."""

from lightning import Trainer, seed_everything

from lit_rl.callbacks import Diagnostics, RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.policy import TabularPolicy

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
