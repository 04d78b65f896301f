"""The optimizer: AdamW, or any other that can be built from parameter groups and a learning rate."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

from torch.optim import Optimizer

from lit_rl.errors import UsageError

# a class like torch.optim.SGD; the second argument is the learning rate, which is thereby no setting of its own
MakeOptimizer = Callable[[Iterable[Any], float], Optimizer]
UNFIT = {
    "LBFGS": "computes the loss several times a step, and an iteration's micro-batches are there once",
    "SparseAdam": "takes sparse gradients, and a language model's are dense",
}


def build(make: MakeOptimizer, groups: Iterable[dict[str, Any]], learning_rate: float) -> Optimizer:
    """The optimizer of these parameter groups.

    Args:
        learning_rate: of the groups that have none of their own.

    Raises:
        UsageError: it can't be built from them, or can't train them.
    """
    try:
        optimizer = make(groups, learning_rate)
    except Exception as error:  # whatever optimizers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"model.optimizer can't train this model: {reason}; choose another, or leave it out"
        ) from error
    name = type(optimizer).__name__
    if name in UNFIT:
        raise UsageError(f"model.optimizer: {name} {UNFIT[name]}; choose another, or leave it out")
    return optimizer


def settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What each parameter group was given: the initial learning rate, and what the optimizer's constructor takes.

    What else an optimizer keeps in a group is its state.
    """
    names = {"initial_lr", *signature(type(optimizer)).parameters} - {"params", "lr"}
    return [{name: value for name, value in group.items() if name in names} for group in optimizer.param_groups]
