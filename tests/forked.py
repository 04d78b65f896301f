"""Commands of lit_rl in processes of their own, forked from one that has imported it: a command starts in a moment."""

import multiprocessing
import os
import resource
import sys
import tempfile
import threading
from multiprocessing import popen_forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

multiprocessing.set_forkserver_preload(["lit_rl.commands.cli", "mlflow.store.tracking.sqlalchemy_store"])
STARTED = "started"  # a file in the folder, once the command runs
ERRORS = "stderr.txt"


class _Handle(popen_forkserver.Popen):
    """Reads a process's exit code, which can be read once, for whichever threads ask for it."""

    _lock = threading.Lock()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and not wait([self.sentinel], 0 if flag == os.WNOHANG else None):
            return None
        with self._lock:
            return super().poll()


class Process(ForkServerProcess):
    """A process that several threads may start and wait for beside others."""

    @staticmethod
    def _Popen(process: Any) -> _Handle:
        return _Handle(process)


def start(folder: Path, args: list[str], env: dict[str, str] | None = None, **limits: int) -> Any:
    """Starts ``python -m lit_rl ARGS`` in a folder, which gets its standard error; returns the process.

    Args:
        limits: ``fsize``, the most bytes of a file.
    """
    (folder / STARTED).unlink(missing_ok=True)
    process = Process(target=_work, args=(str(folder), args, env or {}, limits))
    process.start()
    return process


def finish(process: Any) -> int:
    """Waits, and returns the exit code that a shell would see."""
    process.join()
    return process.exitcode if process.exitcode >= 0 else 128 - process.exitcode


def run(folder: Path, args: list[str], env: dict[str, str] | None = None, **limits: int) -> int:
    """Runs the command; returns its exit code."""
    return finish(start(folder, args, env, **limits))


def said(folder: Path) -> list[str]:
    """The lines by which the last command in the folder spoke to its user."""
    return [line for line in (folder / ERRORS).read_text().splitlines() if line.startswith("lit_rl: ")]


def _work(folder: str, args: list[str], env: dict[str, str], limits: dict[str, int]) -> None:
    import torch

    from lit_rl.commands.cli import main

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.update(env)
    tempfile.tempdir = None  # TMPDIR may be another one
    errors = os.open(ERRORS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    if "fsize" in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["fsize"], limits["fsize"]))
    Path(STARTED).touch()
    sys.argv = ["lit_rl", *args]
    sys.exit(main())
