"""Mistakes on the command line: one line, exit code 2, no file made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def ablations(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | environment
    return subprocess.run(
        [sys.executable, "-m", "ablations", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "command"),
        (["fly"], "fly"),
        (["run"], "study"),
        (["run", "quickstrat"], "quickstart"),
        (["report", "nothing"], "nothing"),
        (["run", "quickstart", "--jobs", "0"], "--jobs"),
        (["run", "quickstart", "--jobs", "many"], "--jobs"),
        (["run", "quickstart", "--seeds", "0"], "--seeds"),
        (["run", "quickstart", "--sedes", "1"], "--sedes"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, args, named):
    _is_one_line(ablations(tmp_path, *args), named, tmp_path)


@pytest.mark.parametrize("args", [["run", "quickstart", "--smoke"], ["ui"]])
def test_an_unreachable_server_is_one_line(tmp_path, args):
    done = ablations(tmp_path, *args, MLFLOW_TRACKING_URI="http://127.0.0.1:9", LIT_RL_MLFLOW_PATIENCE="0")
    _is_one_line(done, "MLFLOW_TRACKING_URI", tmp_path)


def test_list_shows_questions(tmp_path):
    done = ablations(tmp_path, "list")
    assert done.returncode == 0 and done.stdout.startswith("quickstart: ") and "?" in done.stdout


def _is_one_line(done: subprocess.CompletedProcess[str], named: str, folder: Path) -> None:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("ablations: ")
    assert named in done.stderr
    assert not list(folder.iterdir())
