"""A worker on a node of a Ray cluster: a Ray task with a process of its own, as on one machine. What the process tells
is the stream of the task's results."""

import os
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from ablations.records.outcome import Outcome
from ablations.sweep.launchers import Death, Work
from ablations.sweep.stages import give_name, part_of
from ablations.sweep.status import Status
from ablations.sweep.workers import ProcessWorker, warm_up

NODE_TRIES = 5  # nodes may be lent for a short time


class Folder(NamedTuple):
    """A folder of the working directory, on its way to another machine: the contents of its files by their paths."""

    path: Path
    files: dict[str, bytes]

    @classmethod
    def packed(cls, path: Path) -> "Folder":
        found = (each for each in path.rglob("*") if each.is_file())
        return cls(path, {str(each.relative_to(path)): each.read_bytes() for each in found})

    def unpack(self) -> None:
        """Makes the folder where it is not there yet; it is whole as soon as it has its name."""
        part = part_of(self.path)
        for name, content in self.files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        give_name(part, self.path)


class Unfit(NamedTuple):
    """A node where a task failed outside of its own process: that could not begin, or its result not be sent.

    Attributes:
        address: of the node.
        reason: one line.
    """

    address: str
    reason: str


class RayWorker:
    """A Ray task; a thread takes what it tells, for Ray's own waiting would swallow what a signal's handler raises.

    Args:
        stream: of the task's results.
        stirred: is given this worker whenever there is something to be told.
        exclude: is told of a node that is unfit.
    """

    def __init__(self, stream: Any, stirred: "queue.SimpleQueue[RayWorker]", exclude: Callable[[Unfit], None]) -> None:
        self.outcome: Outcome | None = None
        self._stream, self._stirred, self._exclude = stream, stirred, exclude
        self._messages: deque[Any] = deque()
        self._death: Death | None = None
        self._over = False
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        try:
            for message in _messages(self._stream):
                self._messages.append(message)
                self._stirred.put(self)
        finally:
            self._over = True
            self._stirred.put(self)

    def told(self) -> Iterator[Status]:
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, Outcome):
                self.outcome = message
            elif isinstance(message, Death):
                self._death = message
            elif isinstance(message, Unfit):
                self._exclude(message)
                self._death = Death("its Ray task", f"of {message.reason}, on {message.address}", NODE_TRIES)
            elif isinstance(message, Folder):
                message.unpack()
            else:
                yield message

    def is_over(self) -> bool:
        return self._over

    def death(self) -> Death:
        return self._death or Death("its Ray task", "without a word")

    def cancel(self) -> None:
        import ray

        ray.cancel(self._stream, force=True)


def _messages(stream: Any) -> Iterator[Any]:
    """What a Ray task tells, or how it ended otherwise."""
    import ray
    from ray.exceptions import NodeDiedError, RayTaskError

    try:
        for reference in stream:
            yield ray.get(reference)
    except RayTaskError as error:  # it raised: a folder that can't be made, a package that is missing there
        yield Unfit(_address(r"\bip=", error), str(error).strip().splitlines()[-1])
    except NodeDiedError as error:
        yield Death("its node", _address("Node IP: ", error), NODE_TRIES)
    except Exception as error:  # of Ray, or in reading what came
        yield Death("its Ray worker", first_line(error))


def _address(before: str, error: Exception) -> str:
    found = re.search(before + r"([^\s,)]+)", str(error))
    return found[1] if found else "unknown"


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def on_node(folder: str, variables: dict[str, str], work: Work, needs: dict[Path, Any]) -> Iterator[Any]:
    """The Ray task. It works in a folder of the same name as the runner's, shared or not."""
    import ray

    Path(folder).mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    for path, packed in needs.items():
        if not path.exists():
            ray.get(packed).unpack()
    warm_up()
    worker = ProcessWorker(work, None, {**os.environ, **variables})
    try:
        while not worker.is_over():
            wait(worker.watched)
            yield from worker.told()
        yield from worker.told()
        if worker.outcome is None:
            yield worker.death()
            return
        if work.makes is not None and worker.outcome.failure is None:
            yield Folder.packed(work.makes)
        yield worker.outcome
    finally:
        worker.kill()
