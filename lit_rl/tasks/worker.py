"""Judges of responses that no response can hold up: in a process of their own, with limits of time and memory.

Libraries that evaluate what a response says may take any time and memory for it, also inside of C code, where a signal
is heard on a process's main thread only, and late.
"""

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

from lit_rl.errors import UsageError

SCRIPT = Path(__file__).with_name("worker_script.py")
START_SECONDS = 120.0  # to import the library, on a machine that is busy


class Worker:
    """Asks a process that is started when it is needed, and started anew when a question was too much for it.

    Args:
        judge: the name of what answers, a function of ``worker_script.py``.
        absent: the message of the error where the process does not start.
    """

    def __init__(self, judge: str, absent: str) -> None:
        self.judge, self.absent = judge, absent
        self.process: Process | None = None
        self._lock = Lock()
        atexit.register(self._end)

    def ask(self, question: dict[str, Any], seconds: float) -> Any:
        """The reply; None where the question raises an error or takes longer than ``seconds``.

        Raises:
            UsageError: the process does not start.
        """
        with self._lock:
            for _ in range(2):  # a process may have been ended by somebody else
                if self.process is None or not self.process.usable:  # or be of the process that this was forked from
                    self.process = Process(self.judge, self.absent)
                reply = self.process.ask({**question, "seconds": seconds}, seconds + 5)
                if reply is not None:
                    return json.loads(reply)
                if self.process.stop() == -signal.SIGALRM:
                    break
        return None

    def _end(self) -> None:
        if self.process is not None and self.process.usable:
            self.process.popen.kill()


class Process:
    """A process that answers line by line."""

    def __init__(self, judge: str, absent: str) -> None:
        self.owner = os.getpid()
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # whose stacks count as memory
        self.popen = subprocess.Popen(
            [sys.executable, str(SCRIPT), judge],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **one_thread},
        )
        self._buffer = b""
        if self._line(START_SECONDS) is None:
            self.stop()
            raise UsageError(absent)

    @property
    def usable(self) -> bool:
        return self.owner == os.getpid() and self.popen.poll() is None

    def ask(self, question: dict[str, Any], seconds: float) -> bytes | None:
        """The reply; None if there is none in time."""
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps(question).encode() + b"\n")
            self.popen.stdin.flush()
        except OSError:  # it died
            return None
        return self._line(seconds)

    def stop(self) -> int:
        """Ends it, if it hasn't ended; the return code."""
        try:
            self.popen.wait(0.5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
        self.popen.communicate()
        return self.popen.returncode

    def _line(self, seconds: float) -> bytes | None:
        assert self.popen.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.popen.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(seconds):
                    return None
                more = os.read(self.popen.stdout.fileno(), 65536)
                if not more:
                    return None
                self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line
