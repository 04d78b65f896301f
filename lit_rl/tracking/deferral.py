"""Signals that come in the middle of what must not be cut in two wait until it is done."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextmanager
def deferred() -> Iterator[None]:
    """Within it the main thread hears of no signal that would end it; behind it the process gets those that came."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(signum: int, frame: Any) -> None:
        came.append(signum)

    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    handled = [signum for signum, handler in before.items() if callable(handler)]
    for signum in handled:
        signal.signal(signum, note)
    try:
        yield
    finally:
        for signum in handled:
            signal.signal(signum, before[signum])
        for each in came:
            os.kill(os.getpid(), each)
