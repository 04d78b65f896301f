"""Gradient noise, measured on the rollouts that training uses."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from lit_rl.algorithms.gradients import measure_gradient


class GradientVariance(Callback):
    """Logs ``gradient/*`` of :class:`lit_rl.functional.variance.GradientStatistics`, a prompt's group being the unit.

    It measures before the iteration's first update, at the weights that sampled, and is an observer: weights, random
    numbers and ``.grad`` stay as they were.

    Args:
        every_n_iterations: how often; the first iteration is always one.
        groups: measure on the first so many groups only; None takes all.
    """

    def __init__(self, every_n_iterations: int = 10, groups: int | None = None) -> None:
        self.every_n_iterations, self.groups = every_n_iterations, groups

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx > 0 or trainer.current_epoch % self.every_n_iterations:
            return
        rollouts = trainer.datamodule.rollouts  # type: ignore[attr-defined]
        with trainer.precision_plugin.forward_context():
            statistics = measure_gradient(pl_module, rollouts, self.groups)  # type: ignore[arg-type]
        values = {f"gradient/{name}": float(value) for name, value in statistics._asdict().items()}
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
