"""Answers that are expressions, read and compared by math-verify, in a process of its own that can be stopped.

math-verify limits its own time by SIGALRM, which works on a process's main thread only, and not inside of C code.
"""

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from lit_rl.errors import UsageError

WORKER = Path(__file__).with_name("math_worker.py")
START_SECONDS = 120.0  # to import math-verify, on a machine that is busy
SECONDS = 5.0  # for one response


def check_installed() -> None:
    """Raises UsageError without math-verify."""
    if find_spec("math_verify") is None:
        raise UsageError("data.task.answer is math, which takes math-verify; pip install 'lit-rl[math]'")


@lru_cache(maxsize=4096)  # a response is scored, and asked for whether it could be read
def judge(text: str, truth: str) -> tuple[bool, bool]:
    """Whether math-verify reads an answer in a text, and whether it equals the truth.

    Neither, where that takes longer than SECONDS.
    """
    with _lock:
        for _ in range(2):  # a worker may have been ended by somebody else
            worker = _worker()
            reply = worker.ask({"text": text, "truth": truth, "seconds": SECONDS}, SECONDS + 5)
            if reply is not None:
                return reply[0], reply[1]
            if worker.stop() == -signal.SIGALRM:
                break
    return False, False


class _Worker:
    """A process that answers line by line."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._buffer = b""
        if self._line(START_SECONDS) is None:
            self.stop()
            raise UsageError("data.task.answer is math, and math-verify does not start; pip install 'lit-rl[math]'")

    @property
    def usable(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def ask(self, question: dict[str, Any], seconds: float) -> list[bool] | None:
        """The reply; None if there is none in time."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:  # it died
            return None
        line = self._line(seconds)
        return None if line is None else json.loads(line)

    def stop(self) -> int:
        """Ends it, if it hasn't ended; the return code."""
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.communicate()
        return self.process.returncode

    def _line(self, seconds: float) -> bytes | None:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(seconds):
                    return None
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    return None
                self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


_lock = Lock()
_running: list[_Worker] = []


def _worker() -> _Worker:
    if not _running or not _running[0].usable:  # stopped, or of the process that this one was forked from
        _running[:] = [_Worker()]
    return _running[0]


@atexit.register
def _end() -> None:
    for worker in _running:
        if worker.usable:
            worker.process.kill()
