"""What a configuration alone tells: looked at before weights are read and anything is written."""

from typing import Any

from lightning import Callback

from lit_rl.callbacks import (
    Budget,
    Credit,
    Diagnostics,
    GradientVariance,
    IterationCheckpoint,
    RewardCallback,
    Transcripts,
    ValueAccuracy,
)
from lit_rl.callbacks.checkpoint_settings import check_folder
from lit_rl.data import RolloutDataModule
from lit_rl.data.trainer_flags import check_fit, check_precision, check_ranges
from lit_rl.errors import UsageError
from lit_rl.ranges import OrForever, Seed, Whole, check, check_classes, ranges_of

CALLBACKS: dict[str, type[Callback]] = {  # by the group of their settings
    "reward": RewardCallback,
    "budget": Budget,
    "gradient_variance": GradientVariance,
    "credit": Credit,
    "diagnostics": Diagnostics,
    "transcripts": Transcripts,
    "value_accuracy": ValueAccuracy,
    "checkpoint": IterationCheckpoint,
}
OF_LIGHTNING: dict[str, dict[str, Any]] = {  # ranges of settings whose class is Lightning's
    "checkpoint": {"every_n_epochs": Whole | None, "every_n_train_steps": Whole | None, "save_top_k": OrForever},
}


def check_settings(config: dict[str, Any], fitting: bool) -> None:
    """That the settings of a command line or a file can do.

    Args:
        config: dictionaries within dictionaries.
        fitting: the policy is to be trained.

    Raises:
        UsageError: one can't.
    """
    if not isinstance(config["seed_everything"], bool):
        check({"seed_everything": Seed | None}, config, "")
    for name, cls in {"data": RolloutDataModule, **CALLBACKS}.items():
        check({**ranges_of(cls), **OF_LIGHTNING.get(name, {})}, config[name], f"{name}.")
    check_classes(config)
    check_ranges(config["trainer"])
    check_precision(config["trainer"])
    if config["trainer"]["barebones"]:
        raise UsageError("trainer.barebones leaves out what iterations are made of, callbacks and logs; leave it out")
    if fitting:
        check_fit(config["trainer"])
        folder = config["checkpoint"]["dirpath"]
        if folder is not None and "://" not in str(folder):
            check_folder(str(folder), "checkpoint.dirpath")
