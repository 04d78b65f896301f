"""Rewards, and other code of a user's, that raise or give what is no number."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from mlflow.tracking import MlflowClient
from trials import Trial

from lit_rl.algorithms import GRPO
from lit_rl.callbacks import RewardCallback
from lit_rl.commands.cli import main
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.policy import TokenTransformer
from lit_rl.tasks import KeyToken
from lit_rl.tracking.address import tracking_uri

torch.set_num_threads(1)
SMALL = ["--data.prompts_per_iteration=2", "--data.rows_per_microbatch=4", "--data.eval_prompts=2", "--model.samples=4"]
SMALL += ["--trainer.accelerator=cpu", "--trainer.max_epochs=3", "--model.reference=false"]
SMALL += ["--diagnostics.every_n_iterations=0", "--transcripts.every_n_iterations=0", "--trainer.limit_val_batches=0"]
KEY = ["--data.task=KeyToken", "--model.policy=TokenTransformer", "--model.policy.hidden_size=16"]
TEXT = ["--data.task=Custom", "--data.task.path=rows.jsonl", "--data.task.reward=rewards.reward"]


class Unprintable(Exception):
    """An error, and a value, of which nothing can be written."""

    def __repr__(self) -> str:
        raise RuntimeError("never")

    __str__ = __repr__


class Quits(BaseException):
    """An error that is no Exception."""


async def coroutine() -> float:
    return 1.0


ERRORS: list[BaseException] = [StopIteration(), StopIteration(1.0), StopAsyncIteration(), GeneratorExit(), SystemExit()]
ERRORS += [
    SystemExit(0),
    SystemExit("bye"),
    KeyError("gold"),
    IndexError(),
    ZeroDivisionError(),
    Unprintable(),
    Quits(),
]
ERRORS += [
    ValueError("two\nlines"),
    RuntimeError("x" * 10**6),
    MemoryError(),
    RecursionError(),
    EOFError(),
    OSError(28),
]
ERRORS += [
    AssertionError(),
    TypeError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ImportError(),
    TimeoutError(),
]
VALUES: list[Any] = [None, "", "1.0", b"1", float("nan"), float("inf"), -float("inf"), 1e300, 10**400, 4e38, -1e16, 1j]
VALUES += [[], [1.0], (1.0,), {}, {"score": 1.0}, torch.ones(2), torch.zeros(0), torch.tensor(torch.nan), np.ones(2)]
VALUES += [np.float64("nan"), np.float64(1e300), np.str_("1"), np.array(["1"]), Decimal("NaN"), Decimal("1e400")]
VALUES += [Unprintable(), object(), lambda: 1.0, float, partial(float), coroutine, range(1), iter([1.0]), "9" * 10**6]
GOOD: list[Any] = [1, True, -0.0, 1e15, np.float32(0.5), np.bool_(False), np.ones(1), torch.ones(1), Decimal("0.1")]

SHARED = tempfile.TemporaryDirectory(prefix="torture-rewards-")
calls, bad_call, outcome = 0, 0, None  # of the reward: so far, the one that goes wrong, and how


def reward(example: Any, ids: Any, text: str) -> Any:
    """1, but in one call what the trial chose."""
    global calls
    calls += 1
    if calls != bad_call:
        return 1.0
    if isinstance(outcome, BaseException) and not isinstance(outcome, Unprintable):
        raise outcome
    return outcome


def command(*args: str) -> tuple[int, list[str]]:
    """The exit code of a command in this process, and what it says to the user. All share MLflow's tables."""
    said = io.StringIO()
    os.chdir(SHARED.name)
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it
    Path("rows.jsonl").write_text('{"prompt": "What is 2 + 2?", "answer": "4"}\n' * 20)
    sys.argv = ["lit_rl", *args]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main()
        except RuntimeError:  # a traceback
            code = 1
    return code, [line for line in said.getvalue().splitlines() if line.startswith("lit_rl: ")]


def last_state() -> str:
    """How the last run of the working directory ended."""
    client = MlflowClient(tracking_uri())
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)[0].info.status


def choose(what: Any, at: int) -> None:
    """What the reward does, and in which call."""
    global calls, bad_call, outcome
    calls, bad_call, outcome = 0, at, what


def fit() -> Trainer:
    """Three iterations of eight responses, without the command line, which takes longest."""
    options = {**TRAINER_DEFAULTS, "max_epochs": 3, "limit_val_batches": 0, "accelerator": "cpu", "logger": False}
    options |= {"enable_checkpointing": False, "enable_progress_bar": False}
    algorithm = GRPO(policy=TokenTransformer(4, 8, False, 16, 1), samples=4, max_new_tokens=8, reference=False)
    data = RolloutDataModule(KeyToken(), prompts_per_iteration=2, rows_per_microbatch=4)
    trainer = Trainer(**options, callbacks=[RewardCallback(reward)])
    trainer.fit(algorithm, datamodule=data)
    return trainer


def check_line(said: str, at: int, setting: str) -> None:
    for part in (f"{setting} r", f"row {(at - 1) % 8 + 1} ", "prompt ", "response "):
        assert part in said, said
    assert calls == at and len(said) < 600 and "\n" not in said, said


def goes_wrong(what: Any, folder: Path) -> None:
    choose(what, 5)
    try:
        fit()
    except UsageError as error:
        check_line(str(error), 5, "reward.scorer")
    else:
        raise AssertionError("training went on")


def command_goes_wrong(what: Any, at: int, setting: str, args: list[str], folder: Path) -> None:
    choose(what, at)
    code, said = command("fit", *args, *SMALL)
    assert code == 2 and len(said) == 1, (code, said)
    check_line(said[0], at, f"lit_rl: {setting}")
    assert last_state() == "FAILED", last_state()


def goes_right(what: Any, folder: Path) -> None:
    choose(what, 3)
    assert fit().current_epoch == 3 and calls == 24


def stops(args: list[str], folder: Path) -> None:
    code, said = command("fit", *args, *SMALL)
    assert code != 0 and last_state() == "FAILED", (code, said, last_state())


def process(what: str, folder: Path) -> None:
    (folder / "mine.py").write_text(f"import sys\n\ndef reward(example, ids, text):\n    {what}\n")
    call = [sys.executable, "-m", "lit_rl", "fit", *KEY, "--reward.scorer=mine.reward", *SMALL]
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(folder)])
    done = subprocess.run(
        call,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("lit_rl: ")]
    assert done.returncode == 2 and len(said) == 1 and "Traceback" not in done.stderr, (done.returncode, done.stderr)
    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    assert last_state() == "FAILED", last_state()


WRONG = "A reward that raises or gives no number ends the run, FAILED, with a line: setting, row, prompt and response"
RIGHT = "A reward may be any number: of Python, NumPy or PyTorch, or a bool"
NO_END = "No StopIteration of a user's code ends a run as a success"
SCORER = [*KEY, "--reward.scorer=rewards.reward"]
TRIALS = [
    *(Trial(WRONG, f"{i}: {type(x).__name__}", partial(goes_wrong, x)) for i, x in enumerate([*ERRORS, *VALUES])),
    *(
        Trial(WRONG, f"a command, {setting}, call {at}", partial(command_goes_wrong, x, at, setting, args))
        for x, at, setting, args in (
            (StopIteration(), 1, "reward.scorer", SCORER),
            (Unprintable(), 8, "reward.scorer", SCORER),
            (float("nan"), 13, "reward.scorer", SCORER),
            (SystemExit(0), 3, "data.task.reward", TEXT),
            (1e300, 24, "data.task.reward", TEXT),
        )
    ),
    *(Trial(RIGHT, str(i), partial(goes_right, x)) for i, x in enumerate(GOOD)),
    *(
        Trial(NO_END, args[-1], partial(stops, args))
        for args in (
            ["--data.task=stopping_early.NoPrompts", *KEY[1:]],
            ["--data.task=stopping_early.NoScore", *KEY[1:]],
            [*KEY, "--data.sampler=stopping_early.NoSamples"],
            [*KEY, "--model=stopping_early.NoAdvantages"],
            [*KEY, "--model=stopping_early.NoLoss"],
            [*KEY, "--model=stopping_early.NoPredictions"],
        )
    ),
    *(Trial(WRONG, f"a process: {what}", partial(process, what)) for what in ("raise StopIteration", "sys.exit(0)")),
]
