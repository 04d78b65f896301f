"""How workers are started: who gets which GPU, and what deaths end a task."""

from collections import Counter
from pathlib import Path

import pytest
import visible_gpus

from ablations.records.outcome import Failure, Outcome
from ablations.sweep.launchers import Death, Work, work_off
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

    def died(self, failure):
        self.happened["tried again"] += 1

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
    assert task.happened == Counter({"started": len(ends), "tried again": died - (outcome.failure is not None)})
    assert not task.claim.exists()


class Settled(Recorded):
    """One of whose end its worker's last word has not come."""

    def settled(self):
        return DONE if self.happened["started"] else None


@pytest.mark.parametrize("death", [NODE, Death("its node", "10.0.0.7", tries=1)])
def test_a_task_that_ended_before_its_worker_died_is_not_tried_again(tmp_path, death):
    task = Settled(tmp_path / "claim")
    work_off([task], Given(death), print)
    assert task.outcomes == [DONE] and task.happened == Counter({"started": 1})
