"""Makes what cells need to have been made before, each once."""

import json
import os
import runpy
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from ablations.grid import Preparation
from ablations.records.experiment import commit
from ablations.records.outcome import Failure, Outcome
from ablations.sweep.claims import CLAIMS, take
from ablations.sweep.launchers import Launcher, Work, work_off
from ablations.sweep.status import Status
from lit_rl.errors import UsageError
from lit_rl.tracking.address import FOLDER

RECORD = "stage.json"  # in the folder: how it was made, and how long that took


def prepare(wanted: Collection[Preparation], launcher: Launcher) -> None:
    """Fills the folders that are not there yet; another runner's are waited for.

    Raises:
        UsageError: a command failed; its folder is not there then.
    """
    tasks = [_StageTask(each) for each in sorted(wanted)]
    for parent in {task.folder.parent for task in tasks}:
        _remove_leftovers(parent)
    missing = [task for task in tasks if not task.folder.exists()]
    if not missing:
        return
    print(f"{len(missing)} stages first: {', '.join(task.folder.name for task in missing)}", file=sys.stderr)
    work_off(missing, launcher, lambda status: None)
    for task in missing:
        if task.failure is not None:
            command = " ".join(task.stage.args)
            raise UsageError(f"the stage `python -m lit_rl {command}` failed: {task.failure.reason}")


def seconds(preparations: Collection[Preparation]) -> float:
    """How long the folders took to fill."""
    return sum(json.loads((Path(each.folder) / RECORD).read_text())["seconds"] for each in preparations)


class _StageTask:
    """A folder to be filled, under a hidden name until it is complete."""

    def __init__(self, stage: Preparation) -> None:
        self.stage, self.folder = stage, Path(stage.folder)
        self.failure: Failure | None = None
        self.claim = _claim(self.folder.name)

    def settled(self) -> Outcome | None:
        return Outcome(None) if self.folder.exists() else None

    def start(self) -> Work:
        return Work(_make, (self.stage, part_of(self.folder)), makes=self.folder)

    def died(self, failure: Failure) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        _remove_leftovers(self.folder.parent)
        self.failure = outcome.failure


def _make(tell: Callable[[Status], None], stage: Preparation, part: Path) -> Failure | None:
    """In a worker: runs the command line as ``python -m lit_rl`` does, and gives the folder its name."""
    if Path(stage.folder).exists():  # on a node where it was made for a runner that did not live to have it
        return None
    import torch

    torch.set_num_threads(1)  # as a cell
    sys.argv = ["lit_rl", *(arg.replace("{folder}", str(part)) for arg in stage.args)]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)  # the terminal is the runner's
        try:
            runpy.run_module("lit_rl", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                shutil.rmtree(part, ignore_errors=True)
                sys.stderr.flush()
                output.seek(0)
                reason = (output.read().strip() or f"exit code {end.code}").splitlines()[-1]
                return Failure(reason.removeprefix("lit_rl: "), True)
    record = {"commit": commit(), "args": stage.args, "seconds": time.perf_counter() - started}
    (part / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    give_name(part, Path(stage.folder))
    return None


def part_of(folder: Path) -> Path:
    """Where one try fills the folder: a hidden name beside it that nobody else has, on whatever machine."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")


def give_name(part: Path, folder: Path) -> None:
    """Makes a filled part the folder, unless another is that by now: of a worker beside, or of a try taken for dead."""
    try:
        part.rename(folder)
    except OSError:
        shutil.rmtree(part)
        if not folder.exists():
            raise


def _claim(name: str) -> Path:
    return FOLDER / CLAIMS / "stages" / name


def _remove_leftovers(parent: Path) -> None:
    """Removes unfinished folders whose maker has ended: it no longer holds its claim."""
    for part in parent.glob(".*.*"):
        claim = take(_claim(part.stem.removeprefix(".")))
        if claim is not None:
            shutil.rmtree(part, ignore_errors=True)
            claim.release()
