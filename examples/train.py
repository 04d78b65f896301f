"""Trains without the command line: an algorithm, a task, Lightning's Trainer and one of its loggers.

From the repository's root:

    python examples/train.py    # minutes on two cores; the metrics are in logs/train/version_0/metrics.csv
"""

from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from lit_rl.algorithms import RLOO
from lit_rl.callbacks import RewardCallback
from lit_rl.data import RolloutDataModule
from lit_rl.tasks import GSM8KStyle


def main(iterations: int = 20) -> None:
    seed_everything(0)
    algorithm = RLOO(
        samples=4, max_new_tokens=64
    )  # of the embedded policy; policy=CausalPolicy("FOLDER") takes another
    data = RolloutDataModule(GSM8KStyle(steps=2), prompts_per_iteration=32, rows_per_microbatch=32, eval_prompts=64)
    trainer = Trainer(
        max_epochs=iterations,  # an iteration is an epoch
        reload_dataloaders_every_n_epochs=1,  # which samples from the current weights
        use_distributed_sampler=False,  # each process draws its own prompts
        callbacks=[RewardCallback()],
        logger=CSVLogger("logs", name="train"),
        log_every_n_steps=1,
    )
    trainer.fit(algorithm, datamodule=data)
    trainer.test(algorithm, datamodule=data)


if __name__ == "__main__":
    main()
