"""Short runs on tasks of position credit."""

import torch
from lightning import Trainer

from lit_rl.callbacks import RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.policy import TokenTransformer


def train(algorithm, on, iterations, callbacks=(), trainer=None, **settings):
    """Metrics of the last iteration on a task of position credit."""
    torch.manual_seed(0)
    policy = TokenTransformer(on.vocabulary, on.length, on.eos_id is not None, hidden_size=32, layers=2)
    defaults = {"policy": policy, "max_new_tokens": on.length, "learning_rate": 2e-3, "reference": False}
    module = algorithm(**{**defaults, **settings})
    options = {**TRAINER_DEFAULTS, "max_epochs": iterations, "limit_val_batches": 0, "accelerator": "cpu"}
    trainer = Trainer(
        **{**options, **(trainer or {})},
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[RewardCallback(), *callbacks],
    )
    data = RolloutDataModule(on, prompts_per_iteration=16, rows_per_microbatch=16, seed=0)
    trainer.fit(module, datamodule=data)
    return trainer.callback_metrics
