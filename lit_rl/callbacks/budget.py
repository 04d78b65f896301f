"""A run's budget in generated tokens."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from lit_rl.errors import UsageError


class Budget(Callback):
    """Ends training with the iteration in which the generated tokens reach the budget.

    Continuations and greedy probes count (``tokens/generated``), so that runs of different algorithms end at equal
    tokens, to within an iteration. ``trainer.max_epochs`` ends a run as well.

    Args:
        generated_tokens: of all ranks; None for no limit.
    """

    def __init__(self, generated_tokens: int | None = None) -> None:
        if generated_tokens is not None and generated_tokens < 1:
            raise UsageError(f"budget.generated_tokens is {generated_tokens}; choose at least 1, or null for no limit")
        self.generated_tokens = generated_tokens

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self.generated_tokens is not None and data.generated >= self.generated_tokens:
            trainer.should_stop = True
