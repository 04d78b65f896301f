"""Sweeps whose workers and runners are killed, doubled and interrupted."""

import functools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import sweeping
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from trials import Trial
from waiting import PATIENCE, until

from ablations.records.experiment import ARM, KIND, SEED
from ablations.study import Study

AT_ONCE = 2
SEEDS = 3
SWEPT = ("swept", "--seeds", str(SEEDS))
DYING = 30  # seconds for what a killed runner started

DEAD_WORKER = (
    "A worker that dies costs its own cell, which is tried once more; the report is that of an undisturbed sweep"
)
DEAD_TWICE = "A cell whose worker dies twice is failed and named, the others finish, and the exit code is 1"
KILLED = "A killed runner leaves no process; started again, each cell finishes once; the report is undisturbed"
DOUBLE = "Two runners of a study share its cells: each finishes once; what one that is killed leaves, the other does"
STAGE = "A runner killed in a stage leaves no process, and no folder once it was started again; a stage is made once"
SIGNAL = "SIGINT ends a sweep with 130, SIGTERM with 143: nothing is left at work, and a start again goes on"
SETTINGS = "A study that fails on its settings alone ends with 2 and a line a cell"


def dead_workers(folder: Path) -> None:
    """Of the first three cells, each once: one that is tried again comes behind the others."""
    runner = sweeping.start(folder, "run", *SWEPT, "--jobs", "2")
    killed: set[int] = set()
    while len(killed) < 3:
        for pid in _workers(runner):
            if pid not in killed and len(killed) < 3:
                time.sleep(random.uniform(0, 0.3))
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        _check(runner.poll() is None, "the sweep ended too soon")
        time.sleep(0.02)
    _ends(runner, 0)
    _finished_once(folder)
    _undisturbed(folder)


def dead_twice(folder: Path) -> None:
    errors = _ends(sweeping.start(folder, "run", "deadly", "--jobs", "2"), 1)
    failed = [line for line in errors if line.startswith("failed: ")]
    _check(failed == ["failed: segmentation fault, seed 0: its process died twice, of SIGSEGV"], str(failed))
    cells = Counter((run.data.tags[ARM], run.info.status) for run in _runs(folder, "deadly", "cell"))
    finished = {arm: n for (arm, status), n in cells.items() if status == "FINISHED"}
    _check(finished == {"killed once": 1, "fine": 1} and cells["segmentation fault", "FAILED"] == 1, str(cells))


def killed_runner(folder: Path, seed: int, kills: int) -> None:
    """Kills come at any moment: of the imports, of the first steps, and, most of them, while cells run."""
    drawn = random.Random(seed)
    for kill in range(kills):
        runner = sweeping.start(folder, "run", *SWEPT, "--jobs", "2")
        if kill == 0:
            time.sleep(drawn.uniform(0.2, 4))
        else:
            until(lambda runner=runner: bool(_workers(runner)), runner)
            time.sleep(drawn.uniform(0, 0.8))
        _kill(runner)
    _ends(sweeping.start(folder, "run", *SWEPT, "--jobs", "2"), 0)
    _finished_once(folder)
    _undisturbed(folder)


def two_runners(folder: Path) -> None:
    both = [sweeping.start(folder, "run", *SWEPT, "--jobs", "1") for _ in range(2)]
    for runner in both:
        _ends(runner, 0)
    _finished_once(folder)
    _undisturbed(folder)


def two_runners_one_killed(folder: Path) -> None:
    one, other = (sweeping.start(folder, "run", *SWEPT, "--jobs", "1") for _ in range(2))
    until(lambda: bool(_workers(one) and _workers(other)), one)
    one.kill()
    one.wait()
    _ends(other, 0)
    _finished_once(folder)
    _undisturbed(folder)


def killed_in_a_stage(folder: Path) -> None:
    runner = sweeping.start(folder, "run", "staged")
    claims: list[Path] = []
    until(lambda: bool(claims.extend(folder.glob("mlruns/claims/stages/*")) or claims), runner)
    time.sleep(random.uniform(0, 0.3))
    _kill(runner)
    _check(not list(folder.glob("mlruns/stages/[!.]*")), "the stage was made before the kill")
    # the folder is written within a moment, which no kill meets
    (folder / "mlruns" / "stages" / f".{claims[0].name}.{runner.pid}").mkdir(parents=True, exist_ok=True)
    _ends(sweeping.start(folder, "run", "staged"), 0)
    _one_stage(folder)


def two_runners_of_a_stage(folder: Path) -> None:
    both = [sweeping.start(folder, "run", "staged") for _ in range(2)]
    for runner in both:
        _ends(runner, 0)
    _one_stage(folder)
    made = _runs(folder, "reward_models")
    _check(len(made) == 1, f"{len(made)} runs of the stage")


def stopped(folder: Path, number: int, study: str, everyone: bool) -> None:
    """In a stage or while cells run; the runner alone is told, or its whole group, as by a terminal."""
    runner = sweeping.start(folder, "run", study, "--jobs", "2")
    until(lambda: bool(_workers(runner)), runner)
    (os.killpg if everyone else os.kill)(runner.pid, number)
    errors = _ends(runner, 128 + number)
    _check(errors[-1].endswith("; the same command goes on from here"), str(errors))
    _check("Traceback" not in " ".join(errors), str(errors))
    left = [run.info.run_name for run in _runs(folder, study) if run.info.status == "RUNNING"]
    _check(not left, f"{left} are RUNNING")
    _ends(sweeping.start(folder, "run", study, "--jobs", "2"), 0)
    _finished_once(folder, sweeping.STUDIES[study], len(sweeping.STUDIES[study].seeds))


def settings(folder: Path) -> None:
    errors = _ends(sweeping.start(folder, "run", "mistaken", "--jobs", "2"), 2)
    named = [line for line in errors if line.startswith("failed: mistaken, seed ") and "rows_per_microbatch" in line]
    _check(len(named) == 2, str(errors))


TRIALS = [
    Trial(DEAD_WORKER, "SIGKILL of three workers", dead_workers),
    Trial(DEAD_TWICE, "a segmentation fault in an arm's reward", dead_twice),
    *(
        Trial(KILLED, f"{kills} SIGKILLs, sweep {seed}", functools.partial(killed_runner, seed=seed, kills=kills))
        for seed, kills in enumerate((5, 5, 5, 5))
    ),
    Trial(DOUBLE, "both in a fresh folder", two_runners),
    Trial(DOUBLE, "one of them killed", two_runners_one_killed),
    Trial(STAGE, "killed", killed_in_a_stage),
    Trial(STAGE, "two runners", two_runners_of_a_stage),
    *(
        Trial(
            SIGNAL,
            f"{number.name}, {study}, {'the group' if everyone else 'the runner'}",
            functools.partial(stopped, number=number, study=study, everyone=everyone),
        )
        for number, study, everyone in (
            (signal.SIGINT, "swept", True),
            (signal.SIGTERM, "swept", True),
            (signal.SIGTERM, "staged", False),
        )
    ),
    Trial(SETTINGS, "rows that don't fit", settings),
]


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _ends(runner: "subprocess.Popen[str]", code: int) -> list[str]:
    """Waits for the end of all that holds the runner's standard error, its workers too; returns the lines there."""
    errors = runner.communicate(timeout=PATIENCE)[1].splitlines()
    _check(runner.returncode == code, f"exit code {runner.returncode} instead of {code}: {errors}")
    return errors


def _kill(runner: "subprocess.Popen[str]") -> None:
    runner.kill()
    runner.communicate(timeout=DYING)  # raises if something that holds standard error lives on


def _workers(runner: "subprocess.Popen[str]") -> list[int]:
    """The runner's server of processes has them as children."""
    return [pid for server in sweeping.children(runner.pid) for pid in sweeping.children(server)]


def _runs(folder: Path, study: str, kind: str = "") -> list[Run]:
    """Those of a study's cells, arms or both."""
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = '{kind}'" if kind else ""))


def _finished_once(folder: Path, study: Study = sweeping.STUDIES["swept"], seeds: int = SEEDS) -> None:
    """Every cell, and every arm."""
    cells, arms = _runs(folder, study.name, "cell"), _runs(folder, study.name, "arm")
    finished = Counter((run.data.tags[ARM], run.data.tags[SEED]) for run in cells if run.info.status == "FINISHED")
    _check(finished == {(arm, str(seed)): 1 for arm in study.arm_names for seed in range(seeds)}, str(finished))
    _check(not [run for run in cells if run.info.status == "RUNNING"], "a cell is RUNNING")
    states = Counter((run.data.tags[ARM], run.info.status) for run in arms)
    _check(states == {(arm, "FINISHED"): 1 for arm in study.arm_names}, str(states))
    _check(not sweeping.processes(folder), str(sweeping.processes(folder)))


def _one_stage(folder: Path) -> None:
    _finished_once(folder, sweeping.STUDIES["staged"], 1)
    left = [path.name for path in (folder / "mlruns" / "stages").iterdir()]
    _check(len(left) == 1 and left[0].startswith("scores-"), str(left))


def _undisturbed(folder: Path) -> None:
    """The report, without times and names of runs, has the bytes of an undisturbed sweep's."""
    _check(_report(folder) == _reference(), "the report is another one")


_lock = threading.Lock()
_made: list[dict[str, bytes]] = []


def _reference() -> dict[str, bytes]:
    with _lock:
        if not _made:
            folder = Path(tempfile.mkdtemp(prefix="torture-"))
            _ends(sweeping.start(folder, "run", *SWEPT, "--jobs", "2"), 0)
            _made.append(_report(folder))
            shutil.rmtree(folder)
        return _made[0]


def _report(folder: Path) -> dict[str, bytes]:
    shutil.rmtree(folder / "results", ignore_errors=True)
    _ends(sweeping.start(folder, "plain", "swept"), 0)
    return {path.name: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}
