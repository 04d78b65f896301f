"""Signals: a run that is told to end finishes its iteration, saves it and says so."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import rank_zero_only
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lit_rl.callbacks import slurm

ENDING = (signal.SIGTERM, signal.SIGINT)
REQUEUE = signal.SIGUSR1  # unless SLURMEnvironment is given another one


class Interrupted(SystemExit):
    """A signal has ended the command.

    The exit code is 128 and the signal's number in the first process, 0 in the others: who started them might take
    another code for a failure, and kill the first one while it tidies up.

    Args:
        signum: the signal.
        requeue: whether SLURM shall put the job back into its queue.
        saved: whether all that was done is saved.
    """

    def __init__(self, signum: int, requeue: bool = False, saved: bool = False) -> None:
        super().__init__(0 if getattr(rank_zero_only, "rank", 0) else 128 + signum)
        self.signum, self.requeue, self.saved = signum, requeue, saved


@dataclass
class _Told:
    """What signals have told this process.

    Attributes:
        signum: the last one; 0 before the first.
        requeue: whether one of them was to requeue the job.
        over: the process is ending, and tidies up: no further signal shall disturb it.
    """

    signum: int = 0
    requeue: bool = False
    over: bool = False

    def end(self, signum: int, frame: Any) -> None:
        """A handler that ends the process at once."""
        self.requeue |= signum == REQUEUE
        if not self.over:
            self.over = True
            raise Interrupted(signum, self.requeue)


_told = _Told()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGINT raise :class:`Interrupted`, unless they were ignored before, as by ``nohup``.

    So does, in a job of SLURM, the signal that its time will be over.
    """
    global _told
    _told = _Told()
    signals = [*ENDING, REQUEUE] if slurm.job() else ENDING
    before = {signum: signal.getsignal(signum) for signum in signals}
    _handle(signals, _told.end)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _handle(signals: Any, handler: Any) -> None:
    for signum in signals:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)


class Interruption(Callback):
    """Acts on signals at the end of the iteration.

    SIGTERM and SIGINT save the iteration and end the run with exit code 143 or 130; its status in MLflow is KILLED. A
    second signal ends the run at once; earlier checkpoints remain. In a SLURM job, the signal that is sent before its
    time is over (``sbatch --signal=USR1@90``) saves the iteration, ends the run and requeues the job, whose command
    then continues.

    :class:`lit_rl.callbacks.IterationCheckpoint` checks whether a signal has come, and saves.
    """

    def __init__(self) -> None:
        self._requeue_signal: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeue_signal = environment.requeue_signal
        _handle([*ENDING, *([self._requeue_signal] if self._requeue_signal else [])], self._note)  # not Lightning's

    def _note(self, signum: int, frame: Any) -> None:
        if signum == self._requeue_signal:
            _told.requeue = True
        elif _told.signum in ENDING or _told.over:
            return _told.end(signum, frame)
        elif not getattr(rank_zero_only, "rank", 0):
            # print might have been interrupted in the middle
            os.write(2, b"\nlit_rl: ends when this iteration is done and saved; once more, and it ends at once\n")
        _told.signum = signum

    def received(self, trainer: Trainer) -> Interrupted | None:
        """What to raise, on all ranks, once the iteration is saved; None if no rank has been told to end."""
        strategy = trainer.strategy
        told = torch.tensor([_told.signum, int(_told.requeue)], device=strategy.root_device)
        signum, requeue = strategy.reduce(told, reduce_op="max").tolist()
        _told.over = bool(signum)
        return Interrupted(signum, bool(requeue), saved=True) if signum else None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, Interrupted):
            return
        for logger in trainer.loggers:
            logger.interrupted = True  # type: ignore[attr-defined]
        launcher: Any = trainer.strategy.launcher
        if not exception.saved and hasattr(launcher, "kill"):
            launcher.kill(signal.SIGKILL)  # the other processes wait for this one
