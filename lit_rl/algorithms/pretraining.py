"""Critic pretraining: when the policy may start."""

import torch
from torch import Tensor, nn

RISE = 0.01  # of the explained variance, that counts as one


class Pretraining(nn.Module):
    """Counts the iterations in which only the critic is fitted. Its state is saved in checkpoints.

    Args:
        iterations: at most.
        patience: ends it after so many iterations in a row without a rise of 0.01 over the best explained variance,
            once that has been above 0.
    """

    def __init__(self, iterations: int, patience: int) -> None:
        super().__init__()
        self.patience = patience
        state = {"left": iterations, "stale": 0, "started": -1 if iterations else 0, "best": 0.0}
        for name, value in state.items():
            self.register_buffer(name, torch.tensor(value))
        self.left: Tensor  # iterations
        self.stale: Tensor  # iterations without a rise
        self.started: Tensor  # the optimizer step at which the policy did, -1 before
        self.best: Tensor

    @property
    def active(self) -> bool:
        """Whether the policy still has to wait."""
        return bool(self.started < 0)

    def look(self, explained: float, step: int) -> None:
        """Decides at the end of an iteration whether it was the last one of pretraining.

        Args:
            explained: variance explained at the start of the iteration, of the responses of all ranks, before the
                critic was fitted to them.
            step: optimizer steps taken so far.
        """
        if not self.active:
            return
        if explained > self.best + RISE:
            self.stale.zero_()
            self.best.fill_(explained)
        elif self.best > 0:
            self.stale += 1
        self.left -= 1
        if not self.left or self.stale >= self.patience:
            self.started.fill_(step)

    def steps_since(self, step: int) -> int:
        """Optimizer steps that the policy has taken, of ``step`` in all."""
        return 0 if self.active else max(0, step - int(self.started))
