"""Processes of their own for cells and stages: one that dies costs what it was at, and nothing else."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from ablations.records.outcome import Failure, Outcome
from ablations.sweep.claims import Claim, take
from ablations.sweep.status import Status
from ablations.sweep.stopping import SIGNALS

# what a cell takes long to import; a process that is forked from the server, which has it, starts in a moment
SHARED = ["ablations.sweep.cell", "mlflow.store.tracking.sqlalchemy_store"]
CONTEXT = multiprocessing.get_context("forkserver")
SECONDS_BETWEEN_LOOKS = 1.0  # at what other runners have claimed
TRIES = 2
Function = Callable[..., Failure | None]  # of a function to tell a Status with, and of arguments


class Task(Protocol):
    """What is to be done once, by whichever runner claims it."""

    claim: Path

    def settled(self) -> Outcome | None:
        """How it ended already; None if it is to be done. Asked by the holder of the claim."""

    def start(self) -> tuple[Function, tuple[Any, ...]]:
        """What a worker is to call."""

    def died(self, failure: Failure, again: bool) -> None:
        """The worker died; ``again`` if there will be another."""

    def ended(self, outcome: Outcome) -> None:
        """This is how it ended, here or in another runner."""


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


def work_off(tasks: Sequence[Task], jobs: int, show: Callable[[Status], None]) -> None:
    """Does the tasks that no other runner does, ``jobs`` at a time; waits for the others and takes over what is left.

    A task whose worker dies is tried once more, behind the others. No worker outlives this function.
    """
    warm_up()
    open_, claimed, running = deque(tasks), deque[Task](), list[_Worker]()
    deaths: Counter[Path] = Counter()
    looked = time.monotonic()
    try:
        while open_ or claimed or running:
            if not open_ and claimed and time.monotonic() - looked >= SECONDS_BETWEEN_LOOKS:
                open_, claimed, looked = claimed, deque(), time.monotonic()
            while open_ and len(running) < jobs:
                task = open_.popleft()
                claim = take(task.claim)
                if claim is None:
                    claimed.append(task)
                elif (outcome := task.settled()) is not None:
                    claim.release()
                    task.ended(outcome)
                else:
                    running.append(_Worker(task, claim))
            watched = [each for worker in running for each in worker.watched]
            ready = wait(watched, SECONDS_BETWEEN_LOOKS if claimed else None) if watched or claimed else ()
            for worker in [each for each in running if each.watched & set(ready)]:
                over = worker.is_over()  # before what it has told: an outcome is the last
                for status in worker.told():
                    show(status)
                if not over:
                    continue
                running.remove(worker)
                task, outcome = worker.task, worker.outcome
                if outcome is None:
                    deaths[task.claim] += 1
                    again = deaths[task.claim] < TRIES
                    failure = Failure(f"its process died{'' if again else ' twice'}, {worker.cause()}", False)
                    task.died(failure, again)
                    outcome = None if again else Outcome(failure)
                worker.claim.release()
                if outcome is None:
                    open_.append(task)
                else:
                    task.ended(outcome)
    finally:
        for process in multiprocessing.active_children():
            process.kill()  # Lightning would outlive a termination
            process.join()


class _Worker:
    """A process at work on a task. It has a pipe of its own: a queue that workers share stays locked when one of them
    is killed while it writes."""

    def __init__(self, task: Task, claim: Claim) -> None:
        self.task, self.claim = task, claim
        self.outcome: Outcome | None = None
        self._reader: Connection
        self._reader, writer = CONTEXT.Pipe(duplex=False)
        function, args = task.start()
        self._process = CONTEXT.Process(target=_work, args=(claim, writer, dict(os.environ), function, args))
        with _blocked():
            self._process.start()
        writer.close()

    @property
    def watched(self) -> set[Any]:
        return {self._process.sentinel} if self._reader.closed else {self._process.sentinel, self._reader}

    def told(self) -> Iterator[Status]:
        """What it has told since the last call."""
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

    def cause(self) -> str:
        """Of its death."""
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"with exit code {code}"
        name = signal.Signals(-code).name
        return f"of {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def _work(
    claim: Claim, writer: Connection, environment: dict[str, str], function: Function, args: tuple[Any, ...]
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
