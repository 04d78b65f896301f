"""Checkpoints under kills, full disks and damage."""

import atexit
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path

import torch
from forked import finish, run, said, start
from trials import Trial

from lit_rl.checkpoint_io import is_whole

AT_ONCE = 2
ITERATIONS = 12
FIT = [
    *("fit", "--model.samples=2", "--data.task=KeyToken", "--model.policy=TokenTransformer", "--trainer.logger=false"),
    *("--model.policy.hidden_size=32", "--model.policy.layers=1", "--data.prompts_per_iteration=4"),
    *("--data.rows_per_microbatch=4", "--data.eval_prompts=4", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--checkpoint.every_n_epochs=1"),
]
SHM = Path("/dev/shm")
RESUMES = (
    "A run that is killed at any time and goes on from last.ckpt ends with bitwise the weights of an undisturbed one"
)
SAVING = "A run that is killed while it saves, whatever TMPDIR is, has a whole checkpoint, and no half one is left"
BROKEN = "A cut, empty or changed checkpoint is refused in a line that names the newest whole one beside it"
NOTICED = "Each changed byte of a checkpoint is noticed"
FULL = "A disk that is full or read-only is a line, and the earlier checkpoint stays as it was"


def fit(algorithm: str, iterations: int = ITERATIONS, *more: str) -> list[str]:
    return [*FIT, f"--model={algorithm}", f"--trainer.max_epochs={iterations}", "--checkpoint.dirpath=saved", *more]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(folder / "saved" / "last.ckpt", weights_only=True)
    finished = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"]
    assert finished == ITERATIONS, f"{finished} iterations"
    return saved["state_dict"]


@cache
def undisturbed(algorithm: str) -> tuple[dict[str, torch.Tensor], float]:
    """The weights at the end, and the seconds that they take."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        assert run(Path(folder), fit(algorithm)) == 0, said(Path(folder))
        started = time.perf_counter()
        run(Path(folder), fit(algorithm))
        return weights(Path(folder)), time.perf_counter() - started


def go_on(folder: Path, algorithm: str) -> None:
    """Everything in the folder is whole, and the run ends as the undisturbed one does."""
    for path in folder.glob("saved/*.ckpt"):
        assert is_whole(path), f"{path.name} is broken"
    last = folder / "saved" / "last.ckpt"
    code = run(folder, fit(algorithm, ITERATIONS, *(["--ckpt_path=saved/last.ckpt"] if last.exists() else [])))
    assert code == 0, (code, said(folder))
    truth, _ = undisturbed(algorithm)
    found = weights(folder)
    assert all(torch.equal(value, found[name]) for name, value in truth.items()), "other weights"
    assert not list(folder.glob("saved/.*")), "a file is left over"


def killed(seed: int, algorithm: str, folder: Path) -> None:
    rng = random.Random(seed)
    _, seconds = undisturbed(algorithm)
    for _ in range(2):
        last = folder / "saved" / "last.ckpt"
        process = start(folder, fit(algorithm, ITERATIONS, *(["--ckpt_path=saved/last.ckpt"] if last.exists() else [])))
        process.join(rng.uniform(0.1, 1.1) * seconds)
        process.kill()
        finish(process)
    go_on(folder, algorithm)


def killed_in_a_save(seed: int, algorithm: str, folder: Path) -> None:
    rng = random.Random(seed)
    saves, saved = rng.randint(1, ITERATIONS), folder / "saved"  # of two an iteration, of which some may go unseen
    other = SHM if seed % 2 and SHM.is_dir() else folder
    with tempfile.TemporaryDirectory(dir=other) as temporary:
        process = start(folder, fit(algorithm), {"TMPDIR": temporary})
        before: set[str] = set()
        while process.is_alive() and saves:
            now = {name for name in os.listdir(saved) if name.endswith(".part")} if saved.is_dir() else set()
            saves -= len(now - before)
            before = now
        time.sleep(rng.choice([0, 0, 0.001, 0.003]))
        process.kill()
        assert finish(process) == 128 + signal.SIGKILL, "it was over before"
        assert not list(Path(temporary).iterdir()), "something is in TMPDIR"
    go_on(folder, algorithm)


@cache
def half_way() -> Path:
    """A folder with the checkpoints of the first half of a run; last.ckpt is the newest."""
    folder = Path(tempfile.mkdtemp(prefix="torture-half-"))
    atexit.register(shutil.rmtree, folder)
    assert run(folder, fit("RLOO", ITERATIONS // 2)) == 0, said(folder)
    return folder


def broken(seed: int, kind: str, folder: Path) -> None:
    rng = random.Random(seed)
    shutil.copytree(half_way() / "saved", folder / "saved")
    last = folder / "saved" / "last.ckpt"
    (other,) = (path for path in last.parent.iterdir() if path != last)
    data = bytearray(last.read_bytes())
    place = rng.randrange(len(data))
    if kind == "cut":
        del data[place:]
    elif kind == "empty":
        data.clear()
    elif kind == "a byte":
        data[place] ^= rng.randint(1, 255)
    else:  # a page that was never written
        page = place // 4096 * 4096
        data[page : page + 4096] = bytes(len(data[page : page + 4096]))
    last.write_bytes(data)
    code = run(folder, fit("RLOO", ITERATIONS, "--ckpt_path=saved/last.ckpt"))
    lines = said(folder)
    assert code == 2 and len(lines) == 1, (code, lines)
    assert "saved/last.ckpt is no checkpoint" in lines[0] and f"saved/{other.name} beside it is whole" in lines[0], (
        lines
    )
    shutil.copy(other, last)
    go_on(folder, "RLOO")


def noticed(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    path = folder / "last.ckpt"
    shutil.copy(half_way() / "saved" / "last.ckpt", path)
    with open(path, "r+b", buffering=0) as file:
        for _ in range(250):
            place = rng.randrange(path.stat().st_size)
            (byte,) = os.pread(file.fileno(), 1, place)
            os.pwrite(file.fileno(), bytes([byte ^ rng.randint(1, 255)]), place)
            assert not is_whole(path), f"byte {place}"
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert is_whole(path)


def full(seed: int, kind: str, folder: Path) -> None:
    rng, saved = random.Random(seed), folder / "saved"
    size = (half_way() / "saved" / "last.ckpt").stat().st_size
    saved.mkdir()
    with disk(saved, 2 * size + rng.randrange(16384, size)) if kind != "quota" else nullcontext():
        shutil.copytree(half_way() / "saved", saved, dirs_exist_ok=True)
        files = {path: path.read_bytes() for path in saved.iterdir()}
        if kind == "read-only":
            remount(saved, "ro")
        args = fit("RLOO", ITERATIONS, "--ckpt_path=saved/last.ckpt")
        code = run(folder, args, **({"fsize": rng.randrange(1, size)} if kind == "quota" else {}))
        lines = [line for line in said(folder) if "since the checkpoint" not in line]
        assert code == 2 and len(lines) == 1 and "checkpoint.dirpath: " in lines[0], (code, lines)
        # a read-only folder is told before anything is loaded
        assert ("can't be written to" if kind == "read-only" else "which is whole") in lines[0], lines
        assert {path: path.read_bytes() for path in saved.iterdir()} == files
        if kind != "quota":
            remount(saved, f"rw,size={10 * size}")
        go_on(folder, "RLOO")


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """Mounts a small disk, of memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(Path(folder), 4096):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


ALGORITHMS = ("RLOO", "PPO", "GRPO", "TRePO")
KINDS = ("quota", *(("full", "read-only") if can_mount() else ()))
TRIALS = [
    *(Trial(RESUMES, f"{i}", partial(killed, i, ALGORITHMS[i % 4])) for i in range(20)),
    *(Trial(SAVING, f"{i}", partial(killed_in_a_save, i, ALGORITHMS[i // 2 % 4])) for i in range(16)),
    *(Trial(BROKEN, f"{kind} {i}", partial(broken, i, kind)) for kind in ("cut", "a byte", "a page") for i in range(4)),
    Trial(BROKEN, "empty", partial(broken, 0, "empty")),
    *(Trial(NOTICED, f"{i}", partial(noticed, i)) for i in range(4)),
    *(Trial(FULL, f"{kind} {i}", partial(full, i, kind)) for kind in KINDS for i in range(3)),
]
