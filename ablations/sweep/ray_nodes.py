"""The launcher of workers on the nodes of a Ray cluster. Each worker is a Ray task with a process of its own, as on one
machine; what the process tells is the stream of the task's results."""

import logging
import math
import os
import queue
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from ablations.records.outcome import Failure, Outcome
from ablations.sweep.claims import Claim
from ablations.sweep.launchers import Death, Work
from ablations.sweep.status import Status
from ablations.sweep.stopping import SIGNALS
from ablations.sweep.workers import GPUS, ProcessWorker, warm_up
from lit_rl.errors import UsageError

SENT = ("MLFLOW_", "LIT_RL_", "HF_")  # what a worker takes over of the runner's variables begins so
NODE_TRIES = 5  # nodes may be lent for a short time
SECONDS_BETWEEN_LOOKS = 1.0  # at which nodes there are
SECONDS_TO_STOP = 5.0
SECONDS_TO_ANSWER = 5.0


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
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        for name, content in self.files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        try:
            part.rename(self.path)
        except OSError:  # a worker beside, or a file system that machines share
            shutil.rmtree(part)
            if not self.path.exists():
                raise


@contextmanager
def connected(address: str, cpus: float, gpus: float, jobs: int | None) -> Iterator["RayNodes"]:
    """The launcher, as long as this process is connected to a Ray cluster.

    Args:
        address: of the cluster, HOST:6379; ``auto`` is that of RAY_ADDRESS or, if unset, of this machine.
        cpus, gpus: what a worker takes of its node.
        jobs: the most workers at a time; None for as many as there is room for.

    Raises:
        UsageError: Ray is not installed, there is no cluster, no node has what a worker takes, or runs go to a file.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--launcher is ray, which takes Ray; pip install 'lit-rl[ray]'") from None
    if (os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:").startswith("sqlite:"):
        raise UsageError(
            "MLFLOW_TRACKING_URI: runs would go to a file, which other machines can't write; start "
            "`mlflow server --host 0.0.0.0 --allowed-hosts 'HOST:*'` and give its address, http://HOST:5000"
        )
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        if address != "auto":  # Ray would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        why = _first_line(error)
        raise UsageError(f"--address: no Ray cluster at {address} ({why}); `ray start --head` starts one") from None
    finally:
        for each, handler in handlers.items():  # Ray has set its own
            signal.signal(each, handler)
    try:
        nodes = RayNodes(cpus, gpus, jobs)
        share = f"{cpus:g} CPU and {gpus:g} GPU"
        if not nodes.room:
            raise UsageError(f"--cpus-per-cell, --gpus-per-cell: no node of the cluster has {share}; ask for less")
        print(f"Ray: {nodes.room} cells at a time now; each takes {share}", file=sys.stderr)
        yield nodes
    finally:
        ray.shutdown()


class RayNodes:
    """See :func:`connected`, which makes it. Claims stay with the runner: its Ray tasks end when it has ended."""

    def __init__(self, cpus: float, gpus: float, jobs: int | None) -> None:
        import ray

        self._share, self._jobs = {"CPU": cpus, "GPU": gpus}, math.inf if jobs is None else jobs
        options = {"num_cpus": cpus, "num_gpus": gpus, "num_returns": "streaming"}
        # no retries: a second try has a run of its own. Ray's worker stays after a task, for it has the imports
        self._task: Any = ray.remote(max_retries=0, max_calls=0, **options)(_on_node)
        self._variables = {name: value for name, value in os.environ.items() if name.startswith(SENT)}
        if not gpus:  # otherwise Ray says which
            self._variables[GPUS] = ""
        self._sent: dict[Path, Any] = {}
        self._stirred: queue.SimpleQueue[RayWorker] = queue.SimpleQueue()
        self._started: list[RayWorker] = []
        self._room, self._looked = 0, -math.inf

    @property
    def room(self) -> int:
        """As many workers as the nodes that are there have room for, if nothing else runs on them."""
        if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            import ray

            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._room, self._looked = sum(room(node, self._share) for node in nodes), time.monotonic()
        return int(min(self._room, self._jobs))

    def warm_up(self) -> None:
        pass

    def start(self, work: Work, claim: Claim | None) -> "RayWorker":
        import ray

        for path in work.needs:
            if path not in self._sent:
                self._sent[path] = ray.put(Folder.packed(path))
        folders = {path: self._sent[path] for path in work.needs}
        stream = self._task.remote(os.getcwd(), self._variables, work, folders)
        self._started = [each for each in self._started if not each.is_over()]
        self._started.append(RayWorker(stream, self._stirred))
        return self._started[-1]

    def wait(self, workers: Sequence["RayWorker"], seconds: float | None) -> list["RayWorker"]:
        """At most a second, since there may be room meanwhile."""
        stirred = set()
        try:
            stirred.add(self._stirred.get(timeout=min(seconds or math.inf, SECONDS_BETWEEN_LOOKS)))
            while True:
                stirred.add(self._stirred.get_nowait())
        except queue.Empty:
            pass
        return [worker for worker in workers if worker in stirred]

    def stop(self) -> None:
        left = [worker for worker in self._started if not worker.is_over()]
        for worker in left:
            worker.cancel()
        for worker in left:
            worker.thread.join(SECONDS_TO_STOP)
        self._started = []


class RayWorker:
    """A Ray task; a thread takes what it tells, for Ray's own waiting would swallow what a signal's handler raises."""

    def __init__(self, stream: Any, stirred: "queue.SimpleQueue[RayWorker]") -> None:
        self.outcome: Outcome | None = None
        self._stream, self._stirred = stream, stirred
        self._messages: deque[Any] = deque()
        self._death: Death | None = None
        self._over = False
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        for message in _messages(self._stream):
            self._messages.append(message)
            self._stirred.put(self)
        self._over = True
        self._stirred.put(self)

    def told(self) -> Iterator[Status]:
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, Outcome):
                self.outcome = message
            elif isinstance(message, Death):
                self._death = message
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
    from ray.exceptions import NodeDiedError, RayError, RayTaskError

    try:
        for reference in stream:
            yield ray.get(reference)
    except RayTaskError as error:  # it raised: a folder that can't be made, a package that is missing there
        yield Outcome(Failure.of(error.cause or error))
    except NodeDiedError as error:
        address = re.search(r"Node IP: ([^\s,]+)", str(error))
        yield Death("its node", address[1] if address else "unknown", NODE_TRIES)
    except RayError as error:
        yield Death("its Ray worker", _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def room(node: Mapping[str, float], share: Mapping[str, float]) -> int:
    """How many workers a node has room for, by what it has and what each takes of it."""
    fits = (node.get(name, 0) / each for name, each in share.items() if each)
    return int(min(fits) + 1e-6)  # a tenth is not exact


def _on_node(folder: str, variables: dict[str, str], work: Work, needs: dict[Path, Any]) -> Iterator[Any]:
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
