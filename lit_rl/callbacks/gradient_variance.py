"""Gradient noise, measured on the rollouts that training uses."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from lit_rl.algorithms.gradients import measure_gradient
from lit_rl.algorithms.schedules import Signal
from lit_rl.functional.variance import signal_share
from lit_rl.ranges import Ranged, Several, Whole

MEMORY = 0.9  # a measurement's weight in the schedule snr, relative to that of the next one


class GradientVariance(Ranged, Signal, Callback, setting="gradient_variance"):
    """Measures the noise of the gradient from the gradients of single groups, and logs it as ``gradient/*``.

    The metrics are those of :class:`lit_rl.functional.variance.GradientStatistics`; the independent unit is the group
    of a prompt. It measures before the first update of an iteration, at the weights that sampled. It changes neither
    weights nor random numbers nor ``.grad``. The learning rate goes by it with ``model.schedule`` ``snr`` alone.

    Args:
        every_n_iterations: measure every so many iterations, beginning with the first; 0 never.
        groups: measure only the first so many groups of each process; null measures all.
    """

    def __init__(self, every_n_iterations: Whole = 10, groups: Several | None = None) -> None:
        self.every_n_iterations, self.groups = every_n_iterations, groups
        self._signal = self._noise = 0.0  # of a step: weighted sums over measurements, for one alone may be all noise

    def share(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        measures = self.every_n_iterations and (data is None or data.prompts_per_iteration > 1)
        return signal_share(self._signal, self._noise) if measures else None

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
        accumulated, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
        prompts = data.prompts_per_iteration * algorithm.passes * accumulated / batches  # of an optimizer step
        self._signal = MEMORY * self._signal + float(statistics.norm_sq)
        self._noise = MEMORY * self._noise + float(statistics.trace_cov) / prompts
        values = {f"gradient/{name}": float(value) for name, value in statistics._asdict().items()}
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.current_epoch == 0:  # of another run; a checkpoint's come after this
            self._signal = self._noise = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"signal": self._signal, "noise": self._noise}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._signal, self._noise = state_dict["signal"], state_dict["noise"]
