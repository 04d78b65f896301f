"""A run's budget in generated tokens or in seconds."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_rl.algorithms.schedules import Limit
from lit_rl.ranges import Count, Positive, Ranged


class Budget(Ranged, Limit, Callback, setting="budget"):
    """Ends training with the iteration in which a budget is reached.

    Continuations and greedy probes count among the generated tokens (``tokens/generated``), so that runs of different
    algorithms end at equal tokens, to within an iteration. ``trainer.max_epochs`` ends a run as well.

    Args:
        generated_tokens: of all ranks; None for no limit.
        seconds: since the start of ``fit``, those of validation left out and those of a resumed run's first part
            counted; None for no limit. Runs end after a different number of iterations on another machine.
    """

    def __init__(self, generated_tokens: Count | None = None, seconds: Positive | None = None) -> None:
        self.generated_tokens, self.seconds = generated_tokens, seconds
        self._generated = 0
        self._spent = 0.0  # seconds
        self._since = 0.0

    def spent(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        algorithm: Any = pl_module
        shares = []
        if self.generated_tokens is not None and not algorithm.plan.demonstrations:  # of which none are generated
            shares.append(self._generated / self.generated_tokens)
        if self.seconds is not None:
            shares.append(self._spent / self.seconds)
        return max(shares, default=None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.current_epoch == 0:  # of another run; a checkpoint's come after this
            self._spent = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()
        self._generated = getattr(trainer.datamodule, "generated", 0)  # type: ignore[attr-defined]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._spent += time.perf_counter() - self._since

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._generated = trainer.datamodule.generated  # type: ignore[attr-defined]
        now = time.perf_counter()
        self._spent, self._since = self._spent + now - self._since, now
        if self.seconds is not None:
            # the ranks' clocks differ: all stop or none, and all have one learning rate
            spent = torch.tensor(self._spent, dtype=torch.float64, device=trainer.strategy.root_device)
            self._spent = float(trainer.strategy.reduce(spent, reduce_op="max"))
        trainer.should_stop |= (self.spent(trainer, pl_module) or 0.0) >= 1

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self._spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._spent = state_dict["spent"]
