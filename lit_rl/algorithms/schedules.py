"""The learning rate over a run: it falls with the share of the run's budget that is spent."""

import math
from typing import Any, Literal

from lightning import LightningModule, Trainer

from lit_rl.errors import UsageError

Schedule = Literal["constant", "linear", "cosine"]


class Limit:
    """A callback that ends training when something is used up; schedules ask it how much of that is."""

    def spent(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        """The share that was used up when the last iteration ended, the same on all ranks.

        Below 1 while training goes on; None if there is no limit.
        """
        raise NotImplementedError


def share_spent(trainer: Trainer, pl_module: LightningModule) -> float | None:
    """The share of a run's budget that is spent, from 0 to 1, at the start of an iteration.

    The budget is ``trainer.max_epochs`` and every :class:`Limit` among the callbacks. With several of them the largest
    share counts, for that one is to end the run.

    Returns:
        None if nothing limits the run.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    shares = [each.spent(trainer, pl_module) for each in callbacks if isinstance(each, Limit)]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append(trainer.current_epoch / trainer.max_epochs)
    return max((share for share in shares if share is not None), default=None)


def decay(schedule: Schedule, trainer: Trainer, pl_module: LightningModule) -> float:
    """The factor of the learning rate in the iteration that starts, with u = :func:`share_spent`.

    ``constant`` is 1, ``linear`` 1 - u, ``cosine`` (1 + cos(pi u)) / 2.

    Raises:
        UsageError: the factor falls with the budget, and the run has none.
    """
    if schedule == "constant":
        return 1.0
    spent = share_spent(trainer, pl_module)
    if spent is None:
        raise UsageError(
            f"model.schedule {schedule} falls with the run's budget, and there is none; set trainer.max_epochs, "
            "budget.generated_tokens (of an algorithm that samples) or budget.seconds, or model.schedule constant"
        )
    return max(0.0, 1 - spent if schedule == "linear" else (1 + math.cos(math.pi * spent)) / 2)
