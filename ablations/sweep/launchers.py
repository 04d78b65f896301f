"""Gives tasks to workers, each task once. A launcher is what starts the workers: on this machine or on many."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ablations.records.outcome import Failure, Outcome
from ablations.sweep.claims import Claim, take
from ablations.sweep.status import Status

SECONDS_BETWEEN_LOOKS = 1.0  # at what other runners have claimed
TRIES = 2
Function = Callable[..., Failure | None]  # of a function to tell a Status with, and of arguments


class Work(NamedTuple):
    """What a worker is to call, in the working directory of the runner.

    Attributes:
        function: see :data:`Function`; a worker imports it.
        args: behind the function that tells.
        needs: folders of the working directory that it reads.
        makes: the folder of the working directory that it fills.
    """

    function: Function
    args: tuple[Any, ...]
    needs: tuple[Path, ...] = ()
    makes: Path | None = None


class Death(NamedTuple):
    """How a worker ended that has no outcome.

    Attributes:
        what: what died, as ``its process``.
        cause: as ``of SIGSEGV``.
        tries: how many deaths of this kind end a task.
    """

    what: str
    cause: str
    tries: int = TRIES


class Task(Protocol):
    """What is to be done once, by whichever runner claims it."""

    claim: Path

    def settled(self) -> Outcome | None:
        """How it ended already; None if it is to be done. Asked by the holder of the claim, before each try and after a
        worker's death, which may have cut off its last word."""

    def start(self) -> Work:
        """What a worker is to do."""

    def died(self, failure: Failure) -> None:
        """The worker died, and there will be another."""

    def ended(self, outcome: Outcome) -> None:
        """This is how it ended, here or in another runner."""


class Worker(Protocol):
    """At work on one task."""

    outcome: Outcome | None  # once it is told

    def told(self) -> Iterator[Status]:
        """What it has told since the last call."""

    def is_over(self) -> bool:
        """Whether it has ended, so that what it has told by then is all."""

    def death(self) -> Death:
        """Of one that is over without an outcome."""


class Launcher(Protocol):
    """Starts workers."""

    @property
    def room(self) -> int:
        """How many workers may be at work at once; it may change."""

    def warm_up(self) -> None:
        """Begins, aside, what takes long before a first worker starts."""

    def start(self, work: Work, claim: Claim | None) -> Worker:
        """A worker at work; one that can hold the claim does, so that it is given back when that one has ended, too."""

    def wait(self, workers: Sequence[Any], seconds: float | None) -> Sequence[Any]:
        """Those of these workers that have told something or are over, as soon as one has, or after some seconds."""

    def stop(self) -> None:
        """Ends all workers."""


def work_off(tasks: Sequence[Task], launcher: Launcher, show: Callable[[Status], None]) -> None:
    """Does the tasks that no other runner does, as many at a time as the launcher has room for; waits for the others
    and takes over what is left.

    A task whose worker dies is tried again, behind the others. No worker outlives this function.
    """
    launcher.warm_up()
    open_, claimed = deque(tasks), deque[Task]()
    running: dict[Worker, tuple[Task, Claim]] = {}
    deaths: Counter[tuple[Path, str]] = Counter()
    looked = time.monotonic()
    try:
        while open_ or claimed or running:
            if not open_ and claimed and time.monotonic() - looked >= SECONDS_BETWEEN_LOOKS:
                open_, claimed, looked = claimed, deque(), time.monotonic()
            while open_ and len(running) < launcher.room:
                task = open_.popleft()
                claim = take(task.claim)
                if claim is None:
                    claimed.append(task)
                elif (outcome := task.settled()) is not None:
                    claim.release()
                    task.ended(outcome)
                else:
                    running[launcher.start(task.start(), claim)] = task, claim
            if not (open_ or claimed or running):
                break
            for worker in launcher.wait(list(running), SECONDS_BETWEEN_LOOKS if claimed else None):
                over = worker.is_over()  # before what it has told: an outcome is the last
                for status in worker.told():
                    show(status)
                if not over:
                    continue
                task, claim = running.pop(worker)
                outcome = task.settled() if worker.outcome is None else worker.outcome
                if outcome is None:
                    failure, again = _failure(worker.death(), task.claim, deaths)
                    if again:
                        task.died(failure)
                    else:
                        outcome = Outcome(failure)
                claim.release()
                if outcome is None:
                    open_.append(task)
                else:
                    task.ended(outcome)
    finally:
        launcher.stop()


def _failure(death: Death, task: Path, deaths: Counter[tuple[Path, str]]) -> tuple[Failure, bool]:
    """Why the task failed, and whether it is to be tried again. The death is counted."""
    deaths[task, death.what] += 1
    count = deaths[task, death.what]
    again = count < death.tries
    often = "" if again else " twice" if count == 2 else f" {count} times"
    return Failure(f"{death.what} died{often}, {death.cause}", False), again
