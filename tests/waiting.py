"""Waiting for something that another process does."""

import subprocess
import time
from collections.abc import Callable

PATIENCE = 300  # seconds


def until(condition: Callable[[], bool], runner: "subprocess.Popen[str] | None" = None) -> None:
    """Waits for the condition, which must come true before the runner ends."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        if runner is not None and runner.poll() is not None:
            raise AssertionError(f"the runner ended too soon: {runner.stderr.read() if runner.stderr else ''}")
        if time.monotonic() > ends:
            raise AssertionError(f"waited in vain, {PATIENCE} s")
        time.sleep(0.02)
