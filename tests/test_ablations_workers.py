"""Cells are lost one at a time, and shared between runners."""

import math
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
import sweeping
from mlflow.entities import Run
from test_launchers import Given

from ablations import grid, studies
from ablations.__main__ import main
from ablations.grid import Preparation
from ablations.records.experiment import ARM, FAILURE, PARENT, SWEEP, Tracking, sweep
from ablations.records.outcome import Failure, Outcome
from ablations.sweep import claims, runner
from ablations.sweep.arm_runs import close_arms, open_arms
from ablations.sweep.cell import run_cell
from ablations.sweep.claims import take
from ablations.sweep.launchers import Death
from ablations.sweep.stages import prepare
from ablations.sweep.workers import Processes, aside


def of(runs: list[Run]) -> Counter[tuple[str, str]]:
    return Counter((run.data.tags[ARM], run.info.status) for run in runs)


def test_a_claim_is_one_process_s_and_ends_with_it(tmp_path):
    path = tmp_path / "claims" / "a"
    mine = take(path)
    assert mine is not None and take(path) is None
    mine.release()
    assert not path.exists()
    code = (
        f"import sys; from pathlib import Path; from ablations.sweep.claims import take; c = take(Path({str(path)!r}))"
    )
    other = subprocess.Popen([sys.executable, "-c", f"{code}; print(c, flush=True); input()"], stdout=-1, stdin=-1)
    assert b"Claim" in other.stdout.readline() and take(path) is None
    other.kill()
    other.communicate()
    left = take(path)
    assert left is not None
    left.release()
    assert not path.exists()


def test_a_worker_that_dies_costs_its_own_cell(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(studies.STUDIES, "deadly", sweeping.STUDIES["deadly"])
    assert main(["run", "deadly", "--jobs", "2"]) == 1
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert failed == ["failed: segmentation fault, seed 0: its process died twice, of SIGSEGV"]
    tracking = Tracking("deadly")
    assert of(tracking.runs("cell")) == {
        ("segmentation fault", "KILLED"): 1,
        ("segmentation fault", "FAILED"): 1,
        ("killed once", "KILLED"): 1,
        ("killed once", "FINISHED"): 1,
        ("fine", "FINISHED"): 1,
    }
    assert of(tracking.runs("arm")) == {
        ("segmentation fault", "FAILED"): 1,
        ("killed once", "FINISHED"): 1,
        ("fine", "FINISHED"): 1,
    }
    assert not [path for path in (tmp_path / "mlruns" / "claims").rglob("*") if path.is_file()]


class Lost(Given):
    """Takes one worker at a time: these are the state that it leaves its run in, and what its runner hears."""

    room = 1

    def __init__(self, tracking: Tracking, *ends: tuple[str, Outcome | Death]) -> None:
        super().__init__(*(heard for _, heard in ends))
        self._tracking, self._states = tracking, [status for status, _ in ends]

    def start(self, work, claim):
        status = self._states.pop(0)
        if status != "RUNNING":
            self._tracking.client.set_terminated(work.args[-1], status)
        return super().start(work, claim)

    def stop(self):
        assert not self.ends


NODE, PROCESS = Death("its node", "10.0.0.7", 5), Death("its process", "of SIGSEGV")
AWAY = Failure("MLflow did not answer", True)


@pytest.mark.parametrize(
    ("ends", "states", "code"),
    [
        ([("FINISHED", NODE)], {("FINISHED", None)}, 0),
        (
            [("RUNNING", PROCESS)] * 2,
            {("KILLED", "its process died, of SIGSEGV"), ("FAILED", "its process died twice, of SIGSEGV")},
            1,
        ),
        (
            [("RUNNING", NODE), ("FINISHED", Outcome(None))],
            {("KILLED", "its node died, 10.0.0.7"), ("FINISHED", None)},
            0,
        ),
        ([("RUNNING", Outcome(AWAY))], {("FAILED", AWAY.reason)}, 2),
    ],
)
def test_a_run_ends_once_and_with_a_reason_whatever_its_runner_hears(tmp_path, ends, states, code):
    study = sweeping.STUDIES["deadly"]
    tracking = Tracking(study.name)
    others = [cell.hash for cell in grid.cells(study)[1:]]
    assert runner.run(study, None, Lost(tracking, *ends), False, others) == code
    runs = tracking.runs("cell")
    assert {(run.info.status, run.data.tags.get(FAILURE)) for run in runs} == states and len(runs) == len(ends)


@pytest.mark.parametrize("name", ["swept", "mistaken"])
def test_what_was_taken_for_dead_leaves_its_run_as_it_is(tmp_path, name):
    tracking, cell = Tracking(name), grid.cells(sweeping.STUDIES[name])[0]
    run = tracking.open_cell(cell, {SWEEP: sweep()})
    tracking.client.set_terminated(run, "KILLED")
    failure = aside(run_cell, print, cell, name, tracking.uri, run)
    assert (failure is None) == (name == "swept")
    ended = tracking.client.get_run(run)
    assert ended.info.status == "KILLED" and FAILURE not in ended.data.tags


def test_what_another_runner_has_claimed_is_left_to_it(tmp_path):
    """This process is the other runner: it claims a cell, which it finishes, and one, which it drops."""
    study = sweeping.STUDIES["swept"]
    tracking = Tracking(study.name)
    cells = grid.cells(study)
    held = [take(claims.folder(tracking.uri, tracking.name) / cell.hash) for cell in cells[:2]]
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(runner.run(study, None, Processes(2), False)))
    thread.start()
    while len(tracking.finished_cells()) < len(cells) - 2:
        thread.join(0.2)
        assert thread.is_alive()
    assert not {cell.hash for cell in cells[:2]} & tracking.finished_cells().keys()
    tracking.client.set_terminated(tracking.open_cell(cells[0], {SWEEP: sweep()}), "FINISHED")
    for claim in held:
        claim.release()
    thread.join()
    assert codes == [0]
    assert of(tracking.runs("cell")) == {(arm, "FINISHED"): 2 for arm in study.arm_names}
    assert of(tracking.runs("arm")) == {(arm, "FINISHED"): 1 for arm in study.arm_names}


def test_runners_share_an_arm_s_run(tmp_path):
    study = sweeping.STUDIES["swept"]
    tracking, cells = Tracking(study.name), grid.cells(study)
    first, second = (open_arms(tracking, cells, False) for _ in range(2))
    assert first == second and first.keys() == set(study.arm_names)

    def finish(cell):
        run = tracking.open_cell(cell, {SWEEP: sweep(), PARENT: first[cell.arm]})
        tracking.client.log_metric(run, "test/accuracy", cell.seed, step=0)
        tracking.client.log_metric(run, "gradient/snr", math.inf, step=0)
        tracking.client.set_terminated(run, "FINISHED")

    for cell in cells[:3]:
        finish(cell)
    for _ in range(2):
        close_arms(tracking, cells[:3], False, lambda run: True)
        assert {run.info.run_id for run in tracking.runs("arm")} == set(first.values())
    for cell in cells[3:]:
        finish(cell)  # of the other runner, under a parent that is closed
    for _ in range(2):
        close_arms(tracking, cells, False, lambda run: True)
        arms = tracking.runs("arm")
        assert of(arms) == {(arm, "FINISHED"): 1 for arm in study.arm_names}
        for arm in arms:
            points = tracking.client.get_metric_history(arm.info.run_id, "test/accuracy")
            assert [(point.step, point.value) for point in points] == [(0, 0.5)]
            assert arm.data.metrics["gradient/snr"] == sys.float_info.max
            children = [run for run in tracking.runs("cell") if run.data.tags[ARM] == arm.data.tags[ARM]]
            assert {run.data.tags[PARENT] for run in children} == {arm.info.run_id}


def test_what_a_killed_maker_left_of_a_stage_is_removed(tmp_path):
    stages = tmp_path / "mlruns" / "stages"
    made, left, others = stages / "made-1", stages / ".gone-2.4711", stages / ".busy-3.4711"
    for folder in (made, left, others):
        folder.mkdir(parents=True)
    claim = take(tmp_path / "mlruns" / "claims" / "stages" / "busy-3")
    prepare([Preparation("mlruns/stages/made-1", ())], Processes(1))
    assert made.exists() and others.exists() and not left.exists()
    claim.release()


def test_a_signal_ends_a_sweep_and_all_that_it_started(tmp_path):
    process = sweeping.start(tmp_path, "run", "swept", "--jobs", "2")
    assert "finished" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGTERM)
    printed = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 143
    assert printed[-1] == "ablations: terminated; the same command goes on from here"
    assert all(line.startswith("[") for line in printed[:-1])
    assert not sweeping.processes(tmp_path)
    tracking = Tracking("swept")
    assert {run.info.status for run in tracking.runs("cell")} <= {"FINISHED", "KILLED"}
    assert "RUNNING" not in {run.info.status for run in tracking.runs("arm")}
