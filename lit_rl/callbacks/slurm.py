"""SLURM's requeue: a job that starts again goes on where it was."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from lit_rl.tracking.address import FOLDER


def job() -> str | None:
    """The batch job's id, as ``scontrol`` takes it; None outside of one."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    found = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
    return found if re.fullmatch("[0-9_]+", found) else None


def _link() -> Path:
    """Names the job and the command, of which a job may have several."""
    command = hashlib.sha256("\0".join(sys.argv[1:]).encode()).hexdigest()[:12]
    return FOLDER / "slurm" / f"{job()}-{command}.ckpt"


def remember(checkpoint: str) -> None:
    """Has this command go on from the checkpoint if the job is requeued. Does nothing outside of a job."""
    if job() is None:
        return
    link, new = _link(), _link().with_suffix(f".{os.getpid()}")
    link.parent.mkdir(parents=True, exist_ok=True)
    new.unlink(missing_ok=True)
    new.symlink_to(Path(checkpoint).absolute())
    new.replace(link)


def forget() -> None:
    """Has this command start anew if the job is requeued: it has done its work."""
    if job() is not None:
        _link().unlink(missing_ok=True)


def checkpoint_to_go_on_from() -> str | None:
    """What this command last saved in this job before it was requeued; None where that was not so."""
    if job() is None or not int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return None
    link = _link()
    return str(link.resolve()) if link.exists() else None


def requeue() -> None:
    """Puts the job back into the queue; says so, or why not, on standard error."""
    command = ["scontrol", "requeue", str(job())]
    try:
        run = subprocess.run(command, capture_output=True, text=True)
        reason = "" if run.returncode == 0 else run.stderr.strip() or f"exit code {run.returncode}"
    except OSError as error:
        reason = str(error.strerror)
    done = f"did not work ({' '.join(reason.split())}); requeue it by hand" if reason else "is done"
    print(f"lit_rl: {' '.join(command)} {done}; it goes on from its last checkpoint", file=sys.stderr)
