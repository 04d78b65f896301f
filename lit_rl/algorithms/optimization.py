"""The optimizer of a run and its learning rates: AdamW or another, warmed up, with a schedule over the run's budget."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

from lightning import LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_rl.algorithms.schedules import Schedule, decay
from lit_rl.errors import UsageError

# a class like torch.optim.SGD; the second argument is the learning rate, which is thereby no setting of its own
MakeOptimizer = Callable[[Iterable[Any], float], Optimizer]
UNFIT = {
    "LBFGS": "computes the loss several times a step, and an iteration's micro-batches are there once",
    "SparseAdam": "takes sparse gradients, and a language model's are dense",
}


class Optimization(LightningModule):
    """A module that says what it trains by :meth:`parameter_groups`, and is warmed up and decayed.

    Args:
        learning_rate: of the parameter groups that have none of their own.
        make_optimizer: from parameter groups and a learning rate.
        schedule: see :func:`lit_rl.algorithms.schedules.decay`.
        warmup_steps: optimizer steps of linear warm-up.
    """

    def __init__(
        self, learning_rate: float, make_optimizer: MakeOptimizer, schedule: Schedule, warmup_steps: int
    ) -> None:
        super().__init__()
        self.learning_rate, self._make_optimizer = learning_rate, make_optimizer
        self.schedule, self.warmup_steps = schedule, warmup_steps
        self._decay = 1.0  # of the learning rates, in this iteration
        self._settings: list[dict[str, Any]] = []  # of the optimizer's parameter groups

    def parameter_groups(self) -> list[tuple[dict[str, Any], Callable[[int], float]]]:
        """The optimizer's parameter groups, each with the factor of its learning rate by optimizer steps taken.

        Frozen parameters are in them too: FSDP2 numbers a checkpoint's by their place in the module.
        """
        raise NotImplementedError

    def warmup(self, step: int) -> float:
        """The factor of the learning rate after ``step`` steps of what is warmed up."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps))

    def check_optimization(self, trainer: Trainer) -> None:
        """That the optimizer can be built for this model, and that the trainer gives the schedule a budget.

        Raises:
            UsageError: one of them can't be had.
        """
        self._optimizer()
        decay(self.schedule, trainer, self)

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer()
        schedule = LambdaLR(optimizer, [self._decayed(warmup) for _, warmup in self.parameter_groups()])
        # beside the rate, what its constructor takes; what else an optimizer keeps in a group is its state
        names = {"initial_lr", *signature(type(optimizer)).parameters} - {"params", "lr"}
        self._settings = [{name: group[name] for name in names & group.keys()} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        decay(self.schedule, self.trainer, self)  # there is one, before anything is sampled

    def on_train_start(self) -> None:
        """From a checkpoint's optimizer and schedule a resumed run takes moments and steps, but no settings."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        schedule: Any = self.lr_schedulers()
        for i, (group, own) in enumerate(zip(optimizer.param_groups, self._settings, strict=False)):
            group.update(own)
            schedule.base_lrs[i] = own["initial_lr"]

    def set_learning_rates(self) -> float | None:
        """Sets those of an iteration's first step.

        Returns:
            That of the first parameter group; None for an algorithm that configures its optimizer itself.
        """
        if not self._settings:
            return None
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        schedule: Any = self.lr_schedulers()
        self._decay = decay(self.schedule, self.trainer, self)
        for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = base * factor(schedule.last_epoch)
        return float(optimizer.param_groups[0]["lr"])

    def _decayed(self, warmup: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: warmup(step) * self._decay

    def _optimizer(self) -> Optimizer:
        groups = [group for group, _ in self.parameter_groups()]
        try:
            optimizer = self._make_optimizer(groups, self.learning_rate)
        except Exception as error:  # whatever optimizers raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(
                f"model.optimizer can't train this model: {reason}; choose another, or leave it out"
            ) from error
        name = type(optimizer).__name__
        if name in UNFIT:
            raise UsageError(f"model.optimizer: {name} {UNFIT[name]}; choose another, or leave it out")
        return optimizer
