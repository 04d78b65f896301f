"""Makes what cells need to have been made before, each once."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ablations.study import Preparation
from ablations.tracking import commit
from lit_rl.errors import UsageError

RECORD = "stage.json"  # in the folder: how it was made, and how long that took


def prepare(wanted: Collection[Preparation], jobs: int) -> None:
    """Fills the folders that are not there yet, ``jobs`` at a time.

    Raises:
        UsageError: a command failed; its folder is not there then.
    """
    missing = sorted(each for each in wanted if not Path(each.folder).exists())
    if not missing:
        return
    print(f"{len(missing)} stages first: {', '.join(Path(each.folder).name for each in missing)}", file=sys.stderr)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(_make, missing))


def seconds(preparations: Collection[Preparation]) -> float:
    """How long the folders took to fill."""
    return sum(json.loads((Path(each.folder) / RECORD).read_text())["seconds"] for each in preparations)


def _make(stage: Preparation) -> None:
    folder = Path(stage.folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")  # what is there under its own name is complete
    shutil.rmtree(part, ignore_errors=True)
    args = [arg.replace("{folder}", str(part)) for arg in stage.args]
    started = time.perf_counter()
    try:
        run = subprocess.run(
            [sys.executable, "-m", "lit_rl", *args],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # as a cell
            capture_output=True,
            text=True,
        )
        if run.returncode:
            reason = (run.stderr.strip() or "no message").splitlines()[-1].removeprefix("lit_rl: ")
            raise UsageError(f"the stage `python -m lit_rl {' '.join(stage.args)}` failed: {reason}")
        record = {"commit": commit(), "args": stage.args, "seconds": time.perf_counter() - started}
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if not folder.exists():  # another sweep may have made it meanwhile
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
