"""Claims of work by locked files: the kernel gives a claim back when the last process that holds it has ended."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from lit_rl.tracking.address import FOLDER

CLAIMS = "claims"
SECONDS_BETWEEN_LOOKS = 0.1


class Claim:
    """Held until :meth:`release`, and by a process that it is sent to as long as that process lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self._path, DupFd(self._descriptor))

    def release(self) -> None:
        """Gives the claim back, and removes its file if no other process holds it."""
        os.close(self._descriptor)
        rest = take(self._path)
        if rest is not None:
            self._path.unlink()
            os.close(rest._descriptor)


def _received(path: Path, duplicate: Any) -> Claim:
    return Claim(path, duplicate.detach())


def take(path: Path) -> Claim | None:
    """The claim of that name, or None if a process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return Claim(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last holder has removed the file: take the one of that name now


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Waits for the claim, and holds it."""
    while (claim := take(path)) is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        claim.release()


def folder(uri: str, name: str) -> Path:
    """Where the claims of an experiment are: beside its SQLite database, or in ``mlruns`` for a server's."""
    database = uri.removeprefix("sqlite:///").split("?")[0]
    return (Path(database).parent if uri.startswith("sqlite:///") else FOLDER) / CLAIMS / name
