"""Runs that are told to end, by a user, a scheduler or SLURM."""

import atexit
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from forked import STARTED, finish, run, said, start
from trials import Trial

AT_ONCE = 2
ITERATIONS = 12
GRACE = 30  # seconds, the usual time before a scheduler kills
FIT = [
    *(
        "fit",
        "--model.samples=2",
        "--data.task=KeyToken",
        "--model.policy=TokenTransformer",
        "--checkpoint.dirpath=saved",
    ),
    *("--model.policy.hidden_size=32", "--model.policy.layers=1", "--data.prompts_per_iteration=4"),
    *("--data.rows_per_microbatch=4", "--data.eval_prompts=4", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", f"--trainer.max_epochs={ITERATIONS}"),
]
ENDS = (
    "SIGTERM and SIGINT end a run at any time with exit code 143 or 130 within 30 s: KILLED, its last iteration saved"
)
GOES_ON = "A run that a signal has ended, and that goes on, ends with bitwise the weights of an undisturbed one"
AT_A_SECOND = "A second signal ends a run at once: KILLED, and what was saved before is whole"
REQUEUED = "A job that SLURM warns (SIGUSR1) is saved and requeued, and the same command goes on to the same weights"
RANKS = "With two processes a signal to the first alone ends both, with the iteration saved"


def fit(algorithm: str, *more: str) -> list[str]:
    return [*FIT, f"--model={algorithm}", *more]


def checkpoint(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """The iterations that are saved, and the weights."""
    last = folder / "saved" / "last.ckpt"
    if not last.exists():
        return 0, {}
    saved = torch.load(last, weights_only=True)
    return saved["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"], saved["state_dict"]


@cache
def database() -> Path:
    """A folder with MLflow's tables, and nothing in them."""
    from mlflow.tracking import MlflowClient

    folder = Path(tempfile.mkdtemp(prefix="torture-database-"))
    atexit.register(shutil.rmtree, folder)
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder


def prepared(folder: Path) -> Path:
    shutil.copytree(database(), folder / "mlruns")
    return folder


@cache
def undisturbed(algorithm: str) -> tuple[dict[str, torch.Tensor], float]:
    """The weights at the end, and the seconds that they take."""
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = prepared(Path(name))
        assert run(folder, fit(algorithm)) == 0, said(folder)
        started = time.perf_counter()
        run(folder, fit(algorithm))
        return checkpoint(folder)[1], time.perf_counter() - started


def newest(folder: Path) -> Any:
    """The MLflow run that was started last; None if there is none."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    found = client.search_experiments(filter_string="name = 'lit_rl'")
    runs = client.search_runs([each.experiment_id for each in found]) if found else []
    return runs[0] if runs else None


def told(folder: Path, args: list[str], delay: float, *signals: int, env: dict[str, str] | None = None) -> int:
    """Starts the command, sends the signals once it has run for ``delay`` seconds; returns the exit code."""
    process = start(folder, args, env)
    while not (folder / STARTED).exists():
        time.sleep(0.01)
    process.join(delay)
    for signum in signals:
        if process.is_alive():
            subprocess.run(["kill", f"-{signum}", str(process.pid)], capture_output=True)
    sent = time.perf_counter()
    code = finish(process)
    assert time.perf_counter() - sent < GRACE, "it took too long"
    return code


def ended(folder: Path, code: int, expected: int) -> None:
    """The run is KILLED and saved as far as MLflow knows it, or was over, or had not begun."""
    found, (saved, _) = newest(folder), checkpoint(folder)
    if code == 0:
        assert found.info.status == "FINISHED" and saved == ITERATIONS
        return
    assert code == expected, code
    if found is None:
        assert not saved
        return
    assert found.info.status == "KILLED", found.info.status
    assert saved == step(folder, found), "not the last one"
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("hpc_ckpt*"))


def step(folder: Path, found: Any) -> int:
    """The last iteration that MLflow has."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    return max((p.step for p in client.get_metric_history(found.info.run_id, "tokens/generated")), default=0)


def same_weights(folder: Path, algorithm: str) -> None:
    saved, weights = checkpoint(folder)
    truth, _ = undisturbed(algorithm)
    assert saved == ITERATIONS and all(torch.equal(value, weights[name]) for name, value in truth.items())


def ends(seed: int, signum: int, algorithm: str, folder: Path) -> None:
    _, seconds = undisturbed(algorithm)
    ended(folder, told(prepared(folder), fit(algorithm), random.Random(seed).uniform(0, seconds), signum), 128 + signum)


def goes_on(seed: int, signum: int, algorithm: str, folder: Path) -> None:
    ends(seed, signum, algorithm, folder)
    resumed = ["--ckpt_path=saved/last.ckpt"] if checkpoint(folder)[0] else []
    assert run(folder, fit(algorithm, *resumed)) == 0, said(folder)
    same_weights(folder, algorithm)
    assert newest(folder).info.status == "FINISHED"


def at_a_second(seed: int, folder: Path) -> None:
    _, seconds = undisturbed("RLOO")
    prepared(folder)
    args = fit("RLOO", "--checkpoint.every_n_epochs=1")
    code = told(folder, args, random.Random(seed).uniform(0, seconds), signal.SIGTERM, signal.SIGTERM)
    found = newest(folder)
    assert code in (0, 143) and (not found or found.info.status == ("KILLED" if code else "FINISHED")), code
    resumed = ["--ckpt_path=saved/last.ckpt"] if checkpoint(folder)[0] else []
    assert run(folder, fit("RLOO", "--checkpoint.every_n_epochs=1", *resumed)) == 0, said(folder)
    same_weights(folder, "RLOO")


def requeued(seed: int, folder: Path) -> None:
    rng, (_, seconds) = random.Random(seed), undisturbed("RLOO")
    prepared(folder)
    script = folder / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n')
    script.chmod(stat.S_IRWXU)
    names = {"JOB_ID": 77, "JOB_NAME": "train", "NTASKS": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0}
    env = {f"SLURM_{name}": str(value) for name, value in names.items()} | {"PATH": f"{script.parent}:/usr/bin:/bin"}
    for restarts in range(4):
        env["SLURM_RESTART_COUNT"] = str(restarts)
        signals = [signal.SIGUSR1, *([signal.SIGTERM] if rng.random() < 0.3 else [])]
        code = told(folder, fit("RLOO"), rng.uniform(0.2, 0.8) * seconds, *(signals if restarts < 3 else []), env=env)
        if code == 0:
            break
        assert code in (128 + signal.SIGUSR1, 143), (code, said(folder))
        assert (folder / "calls").read_text() == "requeue 77\n" * (restarts + 1)
    same_weights(folder, "RLOO")
    assert newest(folder).info.status == "FINISHED" and not list(folder.glob("mlruns/slurm/*"))


def ranks(signum: int, folder: Path) -> None:
    prepared(folder)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=100000"]
    with open(folder / "stderr.txt", "w") as errors:
        command = [sys.executable, "-m", "lit_rl", *fit("RLOO", *two)]
        process = subprocess.Popen(command, cwd=folder, stderr=errors, stdout=errors)
        while process.poll() is None and not ((found := newest(folder)) and step(folder, found)):
            time.sleep(0.2)
        process.send_signal(signum)
        code = process.wait(GRACE)
    assert code == 128 + signum, said(folder)
    assert newest(folder).info.status == "KILLED" and checkpoint(folder)[0] == step(folder, newest(folder))


ALGORITHMS = ("RLOO", "PPO", "GRPO", "TRePO")
TRIALS = [
    *(Trial(ENDS, f"SIGTERM {i}", partial(ends, i, signal.SIGTERM, ALGORITHMS[i % 4])) for i in range(8)),
    *(Trial(ENDS, f"SIGINT {i}", partial(ends, i, signal.SIGINT, ALGORITHMS[i % 4])) for i in range(8)),
    *(Trial(GOES_ON, f"SIGTERM {i}", partial(goes_on, i, signal.SIGTERM, ALGORITHMS[i % 4])) for i in range(8, 16)),
    *(Trial(GOES_ON, f"SIGINT {i}", partial(goes_on, i, signal.SIGINT, ALGORITHMS[i % 4])) for i in range(8, 12)),
    *(Trial(AT_A_SECOND, f"{i}", partial(at_a_second, i)) for i in range(4)),
    *(Trial(REQUEUED, f"{i}", partial(requeued, i)) for i in range(6)),
    Trial(RANKS, "SIGTERM", partial(ranks, signal.SIGTERM)),
]
