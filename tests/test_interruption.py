"""A signal ends a run with the iteration saved, and what is resumed ends as the undisturbed run does."""

import os
import signal
import stat

import pytest
import torch
from mlflow.tracking import MlflowClient

from lit_rl.algorithms import RLOO
from lit_rl.callbacks.interruption import Interrupted, ended_by_signals
from lit_rl.tracking.address import tracking_uri
from lit_rl.tracking.deferral import deferred

FIT = [
    *("fit", "--model=RLOO", "--model.samples=2", "--data.task=KeyToken", "--model.policy=TokenTransformer"),
    *("--model.policy.hidden_size=16", "--model.policy.layers=1", "--data.prompts_per_iteration=4"),
    *("--data.rows_per_microbatch=4", "--trainer.accelerator=cpu", "--data.eval_prompts=4", "--trainer.max_epochs=4"),
]


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A shell's background jobs ignore SIGINT, and so would runs of theirs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def send(monkeypatch):
    """Has this process get signals in the middle of its second iteration from now on, once."""

    def arm(*signals):
        step, left = RLOO.training_step, list(signals)

        def training_step(self, batch, batch_idx):
            if self.current_epoch == 1 and batch_idx == 0:
                while left:
                    os.kill(os.getpid(), left.pop(0))
            return step(self, batch, batch_idx)

        monkeypatch.setattr(RLOO, "training_step", training_step)

    return arm


def weights(path):
    saved = torch.load(path, weights_only=True)
    return saved["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"], saved["state_dict"]


def test_signals(lit_rl, send, monkeypatch, tmp_path):
    def fit(folder, *args):
        code, _, err = lit_rl(*FIT, f"--checkpoint.dirpath={folder}", *args)
        runs = MlflowClient(tracking_uri()).search_runs(["1"])
        (run,) = (run for run in runs if run.data.params["checkpoint/dirpath"] == folder)
        return code, run.info.status, err

    def equal(folder):
        finished, values = weights(tmp_path / folder / "last.ckpt")
        return finished == 4 and all(torch.equal(value, values[name]) for name, value in truth.items())

    assert fit("whole")[:2] == (0, "FINISHED")
    _, truth = weights(tmp_path / "whole" / "last.ckpt")
    handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]

    for signum, expected in {signal.SIGTERM: 143, signal.SIGINT: 130}.items():
        send(signum)
        code, status, err = fit(signum.name)
        assert (code, status) == (expected, "KILLED") and f"{signum.name} ended it behind iteration 2" in err
        assert weights(tmp_path / signum.name / "last.ckpt")[0] == 2
        assert [path.name for path in (tmp_path / signum.name).iterdir()] == ["last.ckpt"]
    assert fit("SIGTERM", "--ckpt_path=SIGTERM/last.ckpt")[:2] == (0, "FINISHED") and equal("SIGTERM")

    send(signal.SIGTERM, signal.SIGTERM)  # at once
    assert fit("twice", "--checkpoint.every_n_epochs=1")[:2] == (143, "KILLED")
    assert weights(tmp_path / "twice" / "last.ckpt")[0] == 1

    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (tmp_path / "scontrol").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": 31, "JOB_NAME": "a", "NTASKS": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    send(signal.SIGUSR1, signal.SIGTERM)  # the job's time will be over, and is
    code, status, err = fit("requeued")
    assert (code, status) == (143, "KILLED") and "scontrol requeue 31 is done" in err
    assert (tmp_path / "calls").read_text() == "requeue 31\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert fit("requeued")[:2] == (0, "FINISHED") and equal("requeued")  # the same command
    assert not list((tmp_path / "mlruns" / "slurm").iterdir())
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == handlers


def test_a_job_that_is_warned_before_it_trains_is_requeued_whatever_comes_while_it_tidies_up(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    with pytest.raises(Interrupted) as raised, ended_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.requeue and raised.value.code == 128 + signal.SIGUSR1
    with pytest.raises(Interrupted) as raised, ended_by_signals():  # another command
        os.kill(os.getpid(), signal.SIGTERM)
    assert not raised.value.requeue and raised.value.code == 143


def test_a_signal_waits_for_what_must_not_be_cut_in_two():
    done = []
    with pytest.raises(Interrupted) as raised, ended_by_signals():
        with deferred():
            with deferred():
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)
        done.append(2)
    assert raised.value.code == 143 and done == [1]
