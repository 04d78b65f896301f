"""What Lightning's Trainer may be told, for iterations to be what they are."""

from collections.abc import Mapping
from typing import Any

from lightning import Trainer

from lit_rl.errors import UsageError
from lit_rl.ranges import Count, NonNegative, OrForever, Whole, check

# flags that Lightning does not check, or tells of in many lines
RANGES: dict[str, Any] = {
    "accumulate_grad_batches": Count,
    "check_val_every_n_epoch": Count | None,
    "gradient_clip_val": NonNegative | None,
    "log_every_n_steps": Whole,
    "max_epochs": OrForever | None,
    "max_steps": OrForever,
    "min_epochs": Whole | None,
    "min_steps": Whole | None,
    "num_nodes": Count,
    "num_sanity_val_steps": OrForever | None,
}
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_SAME = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "None": "32-true"}  # for Lightning
OF_A_TRAINER = (
    *(name for name in RANGES if name != "num_sanity_val_steps"),  # infinity there, for -1
    *("reload_dataloaders_every_n_epochs", "fast_dev_run", "limit_train_batches", "precision"),
)


def flags_of(trainer: Trainer) -> dict[str, Any]:
    """The flags of a Trainer that :func:`check_ranges` and :func:`check_fit` look at."""
    return {name: getattr(trainer, name) for name in OF_A_TRAINER}


def check_ranges(flags: Mapping[str, Any]) -> None:
    """That numbers are in their ranges.

    Raises:
        UsageError: one is not.
    """
    check(RANGES, flags, "trainer.")


def check_fit(flags: Mapping[str, Any]) -> None:
    """That flags let each iteration be sampled from the current weights and trained on whole, at a precision that will
    do.

    Raises:
        UsageError: one does not.
    """
    if flags["reload_dataloaders_every_n_epochs"] != 1:
        raise UsageError(
            "trainer.reload_dataloaders_every_n_epochs must be 1: each iteration samples from the current weights"
        )
    if flags["fast_dev_run"]:
        raise UsageError("trainer.fast_dev_run cuts iterations short; try --trainer.max_epochs 1 instead")
    if flags["limit_train_batches"] is not None and repr(flags["limit_train_batches"]) != "1.0":  # 1 is one batch
        raise UsageError("trainer.limit_train_batches would drop responses; set data.prompts_per_iteration instead")
    precision = _SAME.get(str(flags["precision"]), str(flags["precision"]))
    if precision in ("16-true", "bf16-true"):
        raise UsageError(
            f"trainer.precision {precision} would round log-probabilities; take bf16-mixed, or set model.policy.dtype"
        )
    if precision not in PRECISIONS:
        raise UsageError(f"trainer.precision {precision} is none that this code is for; take {' or '.join(PRECISIONS)}")
    if flags["max_steps"] != -1:
        raise UsageError("trainer.max_steps: a resumed run would stop early; set trainer.max_epochs (iterations)")
