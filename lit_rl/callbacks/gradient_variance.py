"""Gradient noise, measured on the rollouts that training uses."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from lit_rl.algorithms.gradients import measure_gradient
from lit_rl.ranges import Ranged, Several, Whole


class GradientVariance(Ranged, Callback, setting="gradient_variance"):
    """Measures the noise of the gradient from the gradients of single groups, and logs it as ``gradient/*``.

    The metrics are those of :class:`lit_rl.functional.variance.GradientStatistics`; the independent unit is the group
    of a prompt. It measures before the first update of an iteration, at the weights that sampled. It changes neither
    weights nor random numbers nor ``.grad``.

    Args:
        every_n_iterations: measure every so many iterations, beginning with the first; 0 never.
        groups: measure only the first so many groups of each process; null measures all.
    """

    def __init__(self, every_n_iterations: Whole = 10, groups: Several | None = None) -> None:
        self.every_n_iterations, self.groups = every_n_iterations, groups

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx > 0 or not self.every_n_iterations or trainer.current_epoch % self.every_n_iterations:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with trainer.precision_plugin.forward_context():
            algorithm: Any = pl_module
            rows = data.rows_per_microbatch
            statistics = measure_gradient(algorithm, data.rollouts, self.groups, data.sum_over_ranks, rows)
        if statistics is None:
            return
        values = {f"gradient/{name}": float(value) for name, value in statistics._asdict().items()}
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
