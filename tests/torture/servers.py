"""MLflow away, locked or fresh, and kills near a save: at most six minutes."""

import functools
import multiprocessing
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forked import Process
from histories import active_runs, histories
from lightning import Callback, LightningModule, Trainer
from mlflow_server import served
from trials import Trial
from waiting import until

AT_ONCE = 2
ITERATIONS = 30
FIT = [
    *("fit", "--model", "PPO", "--data.task", "KeyToken", "--data.prompts_per_iteration=4"),
    *("--data.rows_per_microbatch=4", "--data.eval_prompts=4", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.check_val_every_n_epoch=3"),
    "--transcripts.every_n_iterations=3",
    *(f"--trainer.max_epochs={ITERATIONS}", "--trainer.callbacks=servers.Watch"),
]
WAITING = "does not answer; waiting up to"  # of what a run says
PRELOAD = ["lit_rl.commands.cli", "ablations.__main__", "mlflow.store.tracking.sqlalchemy_store", "servers"]
multiprocessing.set_forkserver_preload(PRELOAD)


class Watch(Callback):
    """Tells in the file ``iteration`` how far a run is, and kills it some milliseconds after a save began.

    The environment's ``PAUSE`` are seconds a training iteration, ``KILL`` an iteration and milliseconds.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path("iteration").write_text(str(trainer.current_epoch + 1))
        time.sleep(float(os.environ.get("PAUSE", 0)))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        iteration, milliseconds = os.environ.get("KILL", "0,0").split(",")
        if trainer.current_epoch + 1 == int(iteration):
            threading.Timer(float(milliseconds) / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()


# ---- processes ----------------------------------------------------------------------------------------------------


def _child(folder: Path, function: Callable[..., int], args: tuple[Any, ...], env: dict[str, str]) -> None:
    os.chdir(folder)
    log = os.open(f"log.{os.getpid()}", os.O_CREAT | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update({"OMP_NUM_THREADS": "1", "LIT_RL_MLFLOW_PATIENCE": "60"} | env)
    sys.exit(function(*args))


def _fit(*options: str) -> int:
    import torch

    from lit_rl.commands.cli import main

    torch.set_num_threads(1)
    sys.argv = ["lit_rl", *FIT, *options]
    return main()


def _study(seeds: int) -> int:
    from ablations import studies
    from ablations.__main__ import main
    from ablations.study import Arm, Study

    tiny = {
        "model": {"class_path": "RLOO", "init_args": {"samples": 2}},
        "data": {"prompts_per_iteration": 2, "rows_per_microbatch": 2, "eval_prompts": 2},
        "trainer": {"max_epochs": 4, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
    }
    tiny["data"]["task"] = {"class_path": "lit_rl.tasks.KeyToken"}
    arms = (Arm("one", {}), Arm("two", {"model": {"init_args": {"samples": 4}}}))
    study = Study("torn", "?", "here", arms, "one", "test/accuracy", (), base=tiny, seeds=tuple(range(seeds)))
    studies.STUDIES[study.name] = study
    return main(["run", "torn", "--jobs", "2"])


class Run:
    """A process that does ``function(*args)`` in a folder; its output is in the folder's ``log.PID``."""

    def __init__(self, folder: Path, function: Callable[..., int], *args: Any, **env: str) -> None:
        self.folder = folder
        self.process = Process(target=_child, args=(folder, function, args, env))
        self.process.start()

    def reaches(self, iteration: int) -> None:
        file = self.folder / "iteration"
        until(lambda: (file.exists() and int(file.read_text() or 0) >= iteration) or not self.process.is_alive())
        assert self.process.is_alive(), self.said()

    def ends(self, code: int = 0) -> None:
        self.process.join(150)
        found = self.process.exitcode
        self.process.kill()
        assert found == code, f"exit code {found}, not {code}: {self.said()[-600:]}"

    def said(self) -> str:
        log = self.folder / f"log.{self.process.pid}"
        return log.read_text() if log.exists() else ""

    def waits(self, times: int) -> None:
        """Until the run has said that it waits, for so many times."""
        until(lambda: self.said().count(WAITING) >= times)

    def waited(self) -> None:
        assert WAITING in self.said(), f"nothing said of waiting: {self.said()[-600:]}"
        assert "Traceback" not in self.said(), self.said()[-600:]


# ---- what MLflow has ------------------------------------------------------------------------------------------------


_reference: dict[str, Any] = {}
_lock = threading.Lock()


def _is_whole(folder: Path, run_id: str | None = None) -> None:
    """A run has the histories of one that nothing disturbed."""
    with _lock:
        if not _reference:
            with tempfile.TemporaryDirectory() as quiet:
                Run(Path(quiet), _fit).ends()
                _reference.update(histories(Path(quiet), *active_runs(Path(quiet))))
    found = histories(folder, run_id or active_runs(folder)[0])
    assert found.keys() == _reference.keys(), found.keys() ^ _reference.keys()
    wrong = [key for key, value in _reference.items() if found[key] != value]
    assert not wrong, f"{len(wrong)} histories differ, {wrong[0]}: {found[wrong[0]]} != {_reference[wrong[0]]}"


def _resume(folder: Path, *options: str, **env: str) -> None:
    (saved,) = folder.glob("mlruns/checkpoints/*/*/checkpoints/last.ckpt")
    Run(folder, _fit, "--ckpt_path", str(saved), *options, **env).ends()
    assert len(active_runs(folder)) == 1, "a resumed run is another run"


# ---- trials ----------------------------------------------------------------------------------------------------


def _restarted(folder: Path) -> None:
    """Not there when the run starts; killed during the run, and started again."""
    with served(folder) as server:
        run = Run(folder, _fit, MLFLOW_TRACKING_URI=server.uri, PAUSE="0.05")
        run.waits(1)
        server.start()
        run.reaches(8)
        server.kill()
        run.waits(2)
        server.start()
        run.ends()
        assert run.said().count(WAITING) == 2 and "Traceback" not in run.said(), run.said()[-600:]
        _is_whole(folder)


def _gone(folder: Path) -> None:
    with served(folder) as server:
        server.start()
        until(server.answers)
        run = Run(folder, _fit, MLFLOW_TRACKING_URI=server.uri, PAUSE="0.05", LIT_RL_MLFLOW_PATIENCE="3")
        run.reaches(8)
        server.kill()
        run.ends(2)
        lines = [line for line in run.said().splitlines() if "did not answer for 3 s" in line]
        assert len(lines) == 1 and "resume with --ckpt_path" in lines[0] and "Traceback" not in run.said(), run.said()
        server.start()
        _resume(folder, MLFLOW_TRACKING_URI=server.uri)
        _is_whole(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    database = sqlite3.connect(folder / "mlruns" / "mlflow.db", isolation_level=None, timeout=60)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.close()


def _locked_fit(folder: Path) -> None:
    run = Run(folder, _fit, PAUSE="0.05")
    run.reaches(8)
    with _locked(folder):
        run.waits(1)
    run.ends()
    run.waited()
    _is_whole(folder)


def _locked_long(folder: Path) -> None:
    run = Run(folder, _fit, PAUSE="0.05", LIT_RL_MLFLOW_PATIENCE="2")
    run.reaches(8)
    with _locked(folder):
        run.ends(2)
    _resume(folder)
    _is_whole(folder)


def _locked_sweep(folder: Path) -> None:
    run = Run(folder, _study, 2)
    until(lambda: (folder / "mlruns" / "mlflow.db").exists() and len(active_runs(folder)) >= 3)
    with _locked(folder):
        run.waits(1)
    run.ends()
    run.waited()
    _cells_once(folder, 4)


def _gone_sweep(folder: Path) -> None:
    with served(folder) as server:
        server.start()
        until(server.answers)
        settings = {"MLFLOW_TRACKING_URI": server.uri, "LIT_RL_MLFLOW_PATIENCE": "3"}
        run = Run(folder, _study, 2, **settings)
        until(lambda: len(active_runs(folder)) >= 3)
        server.kill()
        run.ends(2)
        assert "did not answer for 3 s" in run.said() and "Traceback" not in run.said(), run.said()
        server.start()
        until(server.answers)
        Run(folder, _study, 2, **settings).ends()
        _cells_once(folder, 4)


def _cells_once(folder: Path, cells: int) -> None:
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        cell = "select run_uuid from tags where key = 'lit_rl.kind' and value = 'cell'"
        states = [row[0] for row in database.execute(f"select status from runs where run_uuid in ({cell})")]
    finished = [state for state in states if state != "KILLED"]  # in an interrupted sweep, before it was gone on with
    assert finished == ["FINISHED"] * cells, states


def _two_fits(folder: Path) -> None:
    for run in [Run(folder, _fit) for _ in range(2)]:
        run.ends()
    runs = active_runs(folder)
    assert len(runs) == 2, runs
    for run_id in runs:
        _is_whole(folder, run_id)


def _two_sweeps(folder: Path) -> None:
    for run in [Run(folder, _study, 1) for _ in range(2)]:
        run.ends()
    _cells_once(folder, 2)


def _killed(folder: Path, every: int, iteration: int, milliseconds: int) -> None:
    every_n = f"--checkpoint.every_n_epochs={every}"
    Run(folder, _fit, every_n, KILL=f"{iteration},{milliseconds}").ends(-signal.SIGKILL)
    _resume(folder, every_n)
    _is_whole(folder)


WAITS = "MLflow's server away for less than LIT_RL_MLFLOW_PATIENCE: a run waits with one line, its histories are whole"
GONE = "MLflow away for longer: exit code 2 and one line; the checkpoint resumes to the undisturbed run's histories"
GONE_SWEEP = "MLflow away for longer in a sweep: exit code 2; the same command then finishes every cell exactly once"
LOCKED = "SQLite locked for less than LIT_RL_MLFLOW_PATIENCE: runs and sweeps wait and lose nothing"
FRESH = "Two commands that start at once in a fresh folder: both succeed"
KILLED = "A run killed near a save is resumed to the undisturbed run's histories: all metrics, each step once, bitwise"
TRIALS = [
    Trial(WAITS, "away at the start, killed and started again", _restarted),
    Trial(GONE, "a server", _gone),
    Trial(GONE_SWEEP, "a server", _gone_sweep),
    Trial(GONE, "a locked database", _locked_long),
    Trial(LOCKED, "a run", _locked_fit),
    Trial(LOCKED, "a sweep", _locked_sweep),
    Trial(FRESH, "two runs", _two_fits),
    Trial(FRESH, "two sweeps of one study", _two_sweeps),
    *(
        Trial(
            KILLED,
            f"{ms} ms after, saves every {every}",
            functools.partial(_killed, every=every, iteration=i, milliseconds=ms),
        )
        for every, i in ((1, 14), (10, 20))
        for ms in (0, 5, 10, 20, 60)
    ),
]
