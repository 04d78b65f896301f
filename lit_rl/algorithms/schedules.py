"""The learning rate over a run: it falls with the share of the budget that is spent, or with the gradient's noise."""

import math
from typing import Any, Literal

from lightning import LightningModule, Trainer

from lit_rl.errors import UsageError

Schedule = Literal["constant", "linear", "cosine", "snr"]


class Limit:
    """A callback that ends training when something is used up; schedules ask it how much of that is."""

    def spent(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        """The share that was used up when the last iteration ended, the same on all ranks.

        Below 1 while training goes on; None if there is no limit.
        """
        raise NotImplementedError


class Signal:
    """A callback that measures gradients; the schedule ``snr`` asks it how much of a step is signal."""

    def share(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        """From 0 to 1, by what earlier iterations have measured, the same on all ranks; 0 before the first measurement.

        None if nothing will be measured.
        """
        raise NotImplementedError


def share_spent(trainer: Trainer, pl_module: LightningModule) -> float | None:
    """The share of a run's budget that is spent, from 0 to 1, at the start of an iteration.

    The budget is ``trainer.max_epochs`` and every :class:`Limit` among the callbacks. With several of them the largest
    share counts, for that one is to end the run.

    Returns:
        None if nothing limits the run.
    """
    shares = [each.spent(trainer, pl_module) for each in _callbacks(trainer) if isinstance(each, Limit)]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append(trainer.current_epoch / trainer.max_epochs)
    return max((share for share in shares if share is not None), default=None)


def decay(schedule: Schedule, trainer: Trainer, pl_module: LightningModule) -> float:
    """The factor of the learning rate in the iteration that starts, with u = :func:`share_spent`.

    ``constant`` is 1, ``linear`` 1 - u, ``cosine`` (1 + cos(pi u)) / 2, ``snr`` the share of a :class:`Signal`.

    Raises:
        UsageError: the factor falls with the budget, and the run has none; or with a noise that nothing measures.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "snr":
        shares = [each.share(trainer, pl_module) for each in _callbacks(trainer) if isinstance(each, Signal)]
        if not shares or shares[0] is None:
            raise UsageError(
                "model.schedule snr goes by the noise that gradient_variance measures, and it measures none; set "
                "gradient_variance.every_n_iterations 1 and data.prompts_per_iteration 2 or more, or model.schedule "
                "constant"
            )
        return shares[0]
    spent = share_spent(trainer, pl_module)
    if spent is None:
        raise UsageError(
            f"model.schedule {schedule} falls with the run's budget, and there is none; set trainer.max_epochs, "
            "budget.generated_tokens (of an algorithm that samples) or budget.seconds, or model.schedule constant"
        )
    return max(0.0, 1 - spent if schedule == "linear" else (1 + math.cos(math.pi * spent)) / 2)


def _callbacks(trainer: Any) -> list[Any]:
    return trainer.callbacks
