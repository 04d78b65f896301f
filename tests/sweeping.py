"""Tiny studies as a command that can be killed, one of them deadly: sweeping.py run|report STUDY ... or plain STUDY."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ablations import studies
from ablations.__main__ import main
from ablations.metric_names import SECONDS
from ablations.records.study_results import StudyResults, load
from ablations.report import study_report
from ablations.study import Arm, Stage, Study
from lit_rl.policy import TabularPolicy

SIZES = {"vocabulary": 3, "length": 2}
BASE = {
    "model": {
        "init_args": {
            "samples": 2,
            "max_new_tokens": 2,
            "policy": {"class_path": "lit_rl.policy.TabularPolicy", "init_args": SIZES},
        },
    },
    "data": {
        "task": {"class_path": "lit_rl.tasks.KeyToken", "init_args": SIZES},
        "prompts_per_iteration": 4,
        "rows_per_microbatch": 4,
        "eval_prompts": 4,
    },
    "gradient_variance": {"every_n_iterations": 0},
    "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
}
SCORES = Stage(
    "scores",
    (
        *("fit-reward", "--data.task", "KeyToken", "--data.task.vocabulary", "3", "--data.task.length", "2"),
        *("--prompts", "16", "--eval_prompts", "16", "--epochs", "1", "--start", "random", "--hidden_size", "8"),
        *("--layers", "1", "--heads", "1", "--output", "{folder}"),
    ),
)


class BrokenPolicy(TabularPolicy):
    """Fails in a way that is no mistake in settings."""

    def decode(self, ids: Tensor) -> str:
        raise RuntimeError("it broke")


def segmentation_fault(example, ids, text) -> float:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0.0


def killed_once(example, ids, text) -> float:
    if not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(ids.sum() % 2)


def _study(name: str, *arms: Arm, seeds: tuple[int, ...] = (0, 1)) -> Study:
    return Study(name, "?", "here", arms, arms[0].name, "test/accuracy_sampled", (), base=BASE, seeds=seeds)


HERE = Path(__file__).stem
RLOO = {"model": {"class_path": "RLOO"}}
ALL = (
    _study("swept", *(Arm(name, {"model": {"class_path": name}}) for name in ("RLOO", "REINFORCE", "ReMax"))),
    _study(
        "deadly",
        Arm("segmentation fault", RLOO | {"reward": {"scorer": f"{HERE}.segmentation_fault"}}),
        Arm("killed once", RLOO | {"reward": {"scorer": f"{HERE}.killed_once"}}),
        Arm("fine", RLOO),
        seeds=(0,),
    ),
    _study(
        "staged",
        Arm("scores", {"model": {"class_path": "ABC", "init_args": {"reward_model": "{scores}"}}}, None, (SCORES,)),
        seeds=(0,),
    ),
    _study("mistaken", Arm("mistaken", RLOO | {"data": {"rows_per_microbatch": 3}}), seeds=(0, 1)),
)
STUDIES = {study.name: study for study in ALL}


def plain(study: Study, smoke: bool) -> StudyResults:
    """What two sweeps have in common: all but times, memory and the names of runs and commits."""
    results = load(study, smoke)
    cells = []
    for cell in results.cells:
        metrics = {k: v for k, v in cell.metrics.items() if not k.startswith(("time/", "seconds/", "memory/"))}
        curves = {k: v for k, v in cell.curves.items() if k != SECONDS}
        curves[SECONDS] = {step: float(step) for step in cell.curves[SECONDS]}
        cells.append(replace(cell, run_id="", commit="", metrics=metrics, curves=curves))
    return replace(results, cells=tuple(cells))


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, *args: str, **environment: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, which hears of ctrl-C whatever its parent's shell has set."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.Popen(
        [sys.executable, __file__, *args],
        cwd=folder,
        env=env | {"PYTHONPATH": str(Path(studies.__file__).parents[2]), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )


def processes(folder: Path) -> dict[int, str]:
    """The command lines of the others that run in a folder, by id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve() and int(process.name) != os.getpid():
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended, or is another user's
            pass
    return found


def children(parent: int) -> list[int]:
    """The ids of a process's children."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            found += map(int, task.read_text().split())
    return found


if __name__ == "__main__":
    studies.STUDIES.update(STUDIES)
    command, *rest = sys.argv[1:]
    if command == "plain":
        study_report.load = plain
        command = "report"
    sys.exit(main([command, *rest]))
