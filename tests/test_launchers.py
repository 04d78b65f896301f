"""How workers are started: who gets which GPU, what deaths end a task, and what travels to another machine."""

import sys
import types
from collections import Counter
from pathlib import Path

import pytest
import visible_gpus

from ablations.__main__ import main
from ablations.records.outcome import Failure, Outcome
from ablations.sweep.launchers import Death, Work, work_off
from ablations.sweep.ray_nodes import Folder, room
from ablations.sweep.workers import Processes


@pytest.mark.parametrize(
    ("visible", "told"),
    [
        ("0,1,2,3,4,5,6,7", ["0", "1", "2"]),
        ("4,5,6", ["4", "5", "6"]),
        ("GPU-a,GPU-b", ["GPU-a", "GPU-b", "GPU-a"]),
        ("6", ["6", "6", "6"]),
        ("", ["", "", ""]),
    ],
)
def test_workers_share_gpus_evenly(monkeypatch, visible, told):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    launcher = Processes(3)
    try:
        assert gpus_of(launcher, 3) == told
    finally:
        launcher.stop()


def test_a_worker_takes_the_gpu_of_one_that_is_over(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    launcher = Processes(2)
    try:
        _, second = (launcher.start(Work(visible_gpus.tell, ()), None) for _ in range(2))
        second.kill()
        assert gpus_of(launcher, 1) == ["1"]
    finally:
        launcher.stop()


def gpus_of(launcher, count: int) -> list[str]:
    """What new workers tell."""
    workers = [launcher.start(Work(visible_gpus.tell, ()), None) for _ in range(count)]
    told: dict = {}
    while len(told) < count:
        for worker in launcher.wait(workers, None):
            told.update((worker, status.cell) for status in worker.told())
            assert not worker.is_over()
    return [told[worker] for worker in workers]


class Given:
    """A launcher whose workers are over at once: with these ends, one after the other."""

    room = 2

    def __init__(self, *ends: Outcome | Death) -> None:
        self.ends = list(ends)
        self.outcome: Outcome | None = None

    def start(self, work, claim):
        worker = Given(self.ends.pop(0))
        worker.outcome = worker.ends[0] if isinstance(worker.ends[0], Outcome) else None
        return worker

    def wait(self, workers, seconds):
        return workers

    def told(self):
        return iter(())

    def is_over(self):
        return True

    def death(self):
        return self.ends[0]

    def warm_up(self):
        pass

    def stop(self):
        pass


class Recorded:
    """A task that writes down what happens to it."""

    def __init__(self, claim: Path) -> None:
        self.claim = claim
        self.happened: Counter[str] = Counter()
        self.outcomes: list[Outcome] = []

    def settled(self):
        return None

    def start(self):
        self.happened["started"] += 1
        return Work(print, ())

    def died(self, failure, again):
        self.happened["tried again" if again else "given up"] += 1

    def ended(self, outcome):
        self.outcomes.append(outcome)


PROCESS, NODE = Death("its process", "of SIGSEGV"), Death("its node", "10.0.0.7", tries=4)
DONE = Outcome(None)


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        ([DONE], DONE),
        ([PROCESS, DONE], DONE),
        ([PROCESS, PROCESS], Outcome(Failure("its process died twice, of SIGSEGV", False))),
        ([NODE, NODE, PROCESS, NODE, DONE], DONE),  # of each kind less than too many
        ([NODE] * 4, Outcome(Failure("its node died 4 times, 10.0.0.7", False))),
    ],
)
def test_a_task_is_tried_again_until_too_many_of_its_workers_died(tmp_path, ends, outcome):
    task = Recorded(tmp_path / "claim")
    work_off([task], Given(*ends), print)
    assert task.outcomes == [outcome]
    died = sum(isinstance(end, Death) for end in ends)
    given_up = outcome.failure is not None
    assert task.happened["started"] == len(ends)
    assert (task.happened["tried again"], task.happened["given up"]) == (died - given_up, given_up)
    assert not task.claim.exists()


def test_a_folder_arrives_whole_and_once(tmp_path, monkeypatch):
    for machine in ("here", "there"):
        (tmp_path / machine).mkdir()
    path = Path("stages/scores-1")
    monkeypatch.chdir(tmp_path / "here")
    (path / "deep").mkdir(parents=True)
    (path / "stage.json").write_text("{}")
    (path / "deep" / "weights").write_bytes(bytes(range(256)))
    folder = Folder.packed(path)
    monkeypatch.chdir(tmp_path / "there")
    for _ in range(2):
        folder.unpack()
        assert Folder.packed(path) == folder
        assert [each.name for each in Path("stages").iterdir()] == ["scores-1"]


@pytest.mark.parametrize(
    ("node", "share", "fits"),
    [
        ({"CPU": 8}, {"CPU": 1, "GPU": 0}, 8),
        ({"CPU": 8}, {"CPU": 1, "GPU": 1}, 0),
        ({"CPU": 8, "GPU": 2}, {"CPU": 1, "GPU": 0.25}, 8),
        ({"CPU": 8, "GPU": 1}, {"CPU": 2, "GPU": 0.1}, 4),
        ({"CPU": 64, "GPU": 1}, {"CPU": 0.5, "GPU": 0.1}, 10),
    ],
)
def test_a_node_has_room_for_what_fits(node, share, fits):
    assert room(node, share) == fits


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "MLFLOW_TRACKING_URI"),
        (["--address", "127.0.0.1:9"], "--address: no Ray cluster at 127.0.0.1:9"),
        (["--address", "head"], "--address: no Ray cluster at head"),
    ],
)
def test_what_ray_cannot_do_is_one_line(monkeypatch, capsys, args, named):
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    if args:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    _is_one_line(capsys, named, "--launcher", "ray", *args)


def test_without_ray_a_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    _is_one_line(capsys, "pip install 'lit-rl[ray]'", "--launcher", "ray")


def test_a_setting_of_ray_is_not_taken_for_one_of_processes(capsys):
    _is_one_line(capsys, "--gpus-per-cell", "--gpus-per-cell", "0.5")


def _is_one_line(capsys, named: str, *args: str) -> None:
    assert main(["run", "quickstart", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ablations: ") and named in line
    assert not list(Path().iterdir())
