"""SIGINT and SIGTERM end a command: what it started ends too, and its exit code is 128 and the signal's number."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """One of these signals came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number
        self.how = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[signal.Signals(number)]


@contextmanager
def stoppable() -> Iterator[None]:
    """The first of the signals raises :class:`Stopped`; later ones are ignored, for they would disturb what cleans up.

    A signal that was ignored before, as that of a shell's background jobs, stays ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {each: signal.getsignal(each) for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN}
    try:
        for each in before:
            signal.signal(each, stop)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
