"""The launcher of workers on the nodes of a Ray cluster."""

import logging
import math
import os
import queue
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ablations.sweep.claims import Claim
from ablations.sweep.launchers import Work
from ablations.sweep.ray_tasks import Folder, RayWorker, Unfit, first_line, on_node
from ablations.sweep.stopping import SIGNALS
from ablations.sweep.workers import GPUS
from lit_rl.errors import UsageError
from lit_rl.tracking.patience import shown

SENT = ("MLFLOW_", "LIT_RL_", "HF_")  # what a worker takes over of the runner's variables begins so
SECONDS_BETWEEN_LOOKS = 1.0  # at which nodes there are
SECONDS_TO_STOP = 5.0  # all workers
SECONDS_TO_ANSWER = 5.0


@contextmanager
def connected(address: str, cpus: float, gpus: float, jobs: int | None) -> Iterator["RayNodes"]:
    """The launcher, as long as this process is connected to a Ray cluster.

    Args:
        address: of the cluster, HOST:6379; ``auto`` is that of RAY_ADDRESS or, if unset, of this machine.
        cpus, gpus: what a worker takes of its node.
        jobs: the most workers at a time; None for as many as there is room for.

    Raises:
        UsageError: Ray is not installed, there is no cluster, no node has what a worker takes, or runs go to a file or
            to an address that means another machine on each node.
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
        why = first_line(error)
        raise UsageError(f"--address: no Ray cluster at {address} ({why}); `ray start --head` starts one") from None
    finally:
        for each, handler in handlers.items():  # Ray has set its own
            signal.signal(each, handler)
    try:
        _check_reachable(os.environ["MLFLOW_TRACKING_URI"], ray.nodes(), ray.util.get_node_ip_address())
        nodes = RayNodes(cpus, gpus, jobs)
        if not nodes.room:
            raise UsageError(
                f"--cpus-per-cell, --gpus-per-cell: a cell takes {nodes.share}, which no node of the cluster has; set "
                "less (--gpus-per-cell 0 runs cells without a GPU)"
            )
        yield nodes
    finally:
        ray.shutdown()


def _check_reachable(uri: str, nodes: Sequence[Mapping[str, Any]], here: str) -> None:
    others = {node["NodeManagerAddress"] for node in nodes if node["Alive"]} - {here}
    if _is_loopback(urlsplit(uri).hostname or "") and not all(map(_is_loopback, others)):
        raise UsageError(
            f"MLFLOW_TRACKING_URI is {shown(uri)}, which on {min(others)} is that machine itself; give an address that "
            f"all nodes reach, as http://{here}:5000 of `mlflow server --host 0.0.0.0 --allowed-hosts '{here}:*'`"
        )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


class RayNodes:
    """See :func:`connected`, which makes it. Claims stay with the runner: its Ray tasks end when it has ended."""

    def __init__(self, cpus: float, gpus: float, jobs: int | None) -> None:
        import ray

        self.share = f"{cpus:g} CPU and {gpus:g} GPU"
        self._share, self._jobs = {"CPU": cpus, "GPU": gpus}, math.inf if jobs is None else jobs
        options = {"num_cpus": cpus, "num_gpus": gpus, "num_returns": "streaming"}
        # no retries: a second try has a run of its own. Ray's worker stays after a task, for it has the imports
        self._task: Any = ray.remote(max_retries=0, max_calls=0, **options)(on_node)
        self._variables = {name: value for name, value in os.environ.items() if name.startswith(SENT)}
        if not gpus:  # otherwise Ray says which
            self._variables[GPUS] = ""
        self._sent: dict[Path, Any] = {}
        self._stirred: queue.SimpleQueue[RayWorker] = queue.SimpleQueue()
        self._started: list[RayWorker] = []
        self._room, self._looked = 0, -math.inf
        self._unfit: dict[str, str] = {}  # ids of nodes that get no more workers, and why

    @property
    def room(self) -> int:
        """As many workers as the nodes that are there have room for, if nothing else runs on them.

        Raises:
            UsageError: there are nodes with room, but on none of them could work begin.
        """
        self._look()
        return int(min(self._room, self._jobs))

    def _look(self) -> None:
        """Which nodes there are; says when there is no room, and when there is."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        before, nodes = self._room, self._nodes()
        self._room = sum(count for each, _, count in nodes if each not in self._unfit)
        self._looked = time.monotonic()
        if nodes and not self._room and all(worker.is_over() for worker in self._started):
            reasons = "; ".join(sorted({self._unfit[each] for each, _, _ in nodes}))
            raise UsageError(f"no node of the Ray cluster can begin a cell ({reasons}); mend that and start again")
        if before and not self._room:
            _say("no node has room for a cell now; waiting for one")
        elif self._room and not before:
            count = int(min(self._room, self._jobs))
            _say(f"{count} cell{'s' * (count > 1)} at a time now; each takes {self.share}")

    def _nodes(self) -> list[tuple[str, str, int]]:
        """Id, address and room of the nodes that have any."""
        import ray

        found = ((node, room(node["Resources"], self._share)) for node in ray.nodes() if node["Alive"])
        return [(node["NodeID"], node["NodeManagerAddress"], count) for node, count in found if count]

    def _exclude(self, node: Unfit) -> None:
        """It would be free at once, and take one cell after the other. One that joins again has a new id."""
        for each, address, _ in self._nodes():
            if address == node.address and each not in self._unfit:
                self._unfit[each], self._looked = f"{address}: {node.reason}", -math.inf
                _say(f"node {address} gets no more cells: {node.reason}")

    def warm_up(self) -> None:
        pass

    def start(self, work: Work, claim: Claim | None) -> "RayWorker":
        import ray

        for path in work.needs:
            if path not in self._sent:
                self._sent[path] = ray.put(Folder.packed(path))
        folders = {path: self._sent[path] for path in work.needs}
        where = {"ray.io/node-id": f"!in({','.join(self._unfit)})"} if self._unfit else None
        stream = self._task.options(label_selector=where).remote(os.getcwd(), self._variables, work, folders)
        self._started = [each for each in self._started if not each.is_over()]
        self._started.append(RayWorker(stream, self._stirred, self._exclude))
        return self._started[-1]

    def wait(self, workers: Sequence["RayWorker"], seconds: float | None) -> list["RayWorker"]:
        """At most a second, since there may be room meanwhile."""
        self._look()
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
        ends = time.monotonic() + SECONDS_TO_STOP
        for worker in left:
            worker.thread.join(max(0.0, ends - time.monotonic()))
        self._started = []


def _say(line: str) -> None:
    print(f"Ray: {line}", file=sys.stderr, flush=True)


def room(node: Mapping[str, float], share: Mapping[str, float]) -> int:
    """How many workers a node has room for, by what it has and what each takes of it."""
    fits = (node.get(name, 0) / each for name, each in share.items() if each)
    return int(min(fits) + 1e-6)  # a tenth is not exact
