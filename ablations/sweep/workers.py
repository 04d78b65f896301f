"""Processes of their own for cells and stages: one that dies costs what it was at, and nothing else."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from ablations.records.outcome import Failure, Outcome
from ablations.sweep.claims import Claim
from ablations.sweep.launchers import Death, Work
from ablations.sweep.status import Status
from ablations.sweep.stopping import SIGNALS

# what a cell takes long to import; a process that is forked from the server, which has it, starts in a moment
SHARED = ["ablations.sweep.cell", "mlflow.store.tracking.sqlalchemy_store"]
CONTEXT = multiprocessing.get_context("forkserver")
GPUS = "CUDA_VISIBLE_DEVICES"


def warm_up() -> None:
    """Lets the server that workers are forked from begin its imports. Signals of the terminal don't reach it."""
    forkserver.set_forkserver_preload(SHARED)
    with _blocked():
        forkserver.ensure_running()


def aside(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a worker. It must not raise."""
    reader, writer = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_call, args=(writer, function, args))
    with _blocked():
        process.start()
    writer.close()
    try:
        return reader.recv()
    finally:
        process.kill()
        process.join()


def _call(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    writer.send(function(*args))


class Processes:
    """The launcher of workers on this machine. Where it has several GPUs, workers share them evenly, and each sees one.

    Args:
        jobs: how many workers at a time.
    """

    def __init__(self, jobs: int) -> None:
        self.room = jobs
        self._places: dict[int, ProcessWorker] = {}

    def warm_up(self) -> None:
        warm_up()

    def start(self, work: Work, claim: Claim | None) -> "ProcessWorker":
        free = (i for i in range(self.room) if i not in self._places or self._places[i].is_over())
        place = next(free)
        self._places[place] = ProcessWorker(work, claim, {**os.environ, **self._share(place)})
        return self._places[place]

    def wait(self, workers: Sequence["ProcessWorker"], seconds: float | None) -> list["ProcessWorker"]:
        ready = set(wait([each for worker in workers for each in worker.watched], seconds))
        return [worker for worker in workers if worker.watched & ready]

    def stop(self) -> None:
        for process in multiprocessing.active_children():
            process.kill()  # Lightning would outlive a termination
            process.join()

    def _share(self, place: int) -> dict[str, str]:
        """The GPU of a worker, as a variable; a machine with one is left as it is."""
        return {GPUS: self._gpus[place % len(self._gpus)]} if len(self._gpus) > 1 else {}

    @cached_property
    def _gpus(self) -> list[str]:
        visible = os.environ.get(GPUS)
        if visible is None:
            return [str(i) for i in range(aside(_number_of_gpus))]
        return [each for each in visible.split(",") if each]


def _number_of_gpus() -> int:
    import torch

    return torch.cuda.device_count()


class ProcessWorker:
    """A process at work on a task. It has a pipe of its own: a queue that workers share stays locked when one of them
    is killed while it writes.

    Args:
        environment: all of its variables.
    """

    def __init__(self, work: Work, claim: Claim | None, environment: dict[str, str]) -> None:
        self.outcome: Outcome | None = None
        self._reader: Connection
        self._reader, writer = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=_work, args=(claim, writer, environment, work.function, work.args))
        with _blocked():
            self._process.start()
        writer.close()

    @property
    def watched(self) -> set[Any]:
        return {self._process.sentinel} if self._reader.closed else {self._process.sentinel, self._reader}

    def told(self) -> Iterator[Status]:
        try:
            while not self._reader.closed and self._reader.poll():
                message = self._reader.recv()
                if isinstance(message, Outcome):
                    self.outcome = message
                else:
                    yield message
        except (EOFError, OSError):
            self._reader.close()

    def is_over(self) -> bool:
        return not self._process.is_alive()

    def death(self) -> Death:
        code = self._process.exitcode
        if code is None or code >= 0:
            return Death("its process", f"with exit code {code}")
        name = signal.Signals(-code).name
        return Death("its process", f"of {name}" + (", perhaps for want of memory" if name == "SIGKILL" else ""))

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _work(
    claim: Claim | None,
    writer: Connection,
    environment: dict[str, str],
    function: Callable[..., Failure | None],
    args: tuple[Any, ...],
) -> None:
    """In the worker: calls the function and tells how that ended."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.environ.clear()  # the server's is that of its start
    os.environ.update(environment)
    try:
        failure = function(writer.send, *args)
    except Exception as error:  # the tracking server went away, for one
        failure = Failure.of(error)
    writer.send(Outcome(failure))


def _follow_parent() -> None:
    """Ends this process when its parent has ended, in whatever way: nobody would hear of its work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _blocked() -> Iterator[None]:
    """What starts here inherits blocked signals: those of a terminal or a queue go to all processes, and the runner
    alone answers them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
