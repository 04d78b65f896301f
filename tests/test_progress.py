"""What a run shows while it goes on, and says at its end."""

import re
import shlex

import pytest
from lightning.pytorch.loggers import CSVLogger
from mlflow.tracking import MlflowClient

from lit_rl.algorithms import RLOO
from lit_rl.callbacks import IterationCheckpoint
from lit_rl.callbacks.pace import Pace
from lit_rl.commands.ending import ending
from lit_rl.tracking.address import tracking_uri

SMALL = ["--data.prompts_per_iteration=4", "--data.rows_per_microbatch=8", "--data.eval_prompts=4"]
SMALL += ["--model.max_new_tokens=40", "--trainer.accelerator=cpu", "--trainer.check_val_every_n_epoch=1"]


@pytest.mark.parametrize("done", [0, 3, 9])
def test_the_time_left_of_a_steady_run_is_what_it_will_take(done):
    """Ten iterations of 4 seconds, 1 of them evaluation, of which a resumed run finds some done."""
    pace = Pace(100.0, done / 10, 50 * done)
    assert pace.left(101.0) is None and pace.tokens_a_second is None
    for now in range(done + 1, 11):
        clock = 100.0 + 4 * (now - done)
        pace.ended(clock, now / 10, 50 * now, evaluation=1.0)
        assert pace.left(clock) == pytest.approx(4 * (10 - now))
        assert pace.left(clock + 1) == pytest.approx(max(0, 4 * (10 - now) - 1))
        assert pace.tokens_a_second == pytest.approx(50 / 3)
        assert pace.elapsed(clock) == pytest.approx(4 * (now - done))


def test_without_a_budget_or_tokens_nothing_is_promised():
    pace = Pace(0.0, None, 0)
    pace.ended(5.0, None, 0, evaluation=0.0)
    assert pace.left(6.0) is None and pace.tokens_a_second is None


def test_a_terminal_shows_time_left_speed_and_memory_and_the_next_command_works(lit_rl, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    code, out, err = lit_rl("fit", "--model", "RLOO", "--trainer.max_epochs=3", *SMALL)
    assert code == 0, err
    assert "INFO" not in err  # of MLflow, which has made its tables
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", err)
    assert re.search(r"[\r\n]`Trainer.fit` stopped", shown)  # on a line of its own
    assert re.search(r"iteration .*[123]/3 +0:\d\d:\d\d, 0:\d\d:\d\d left, train/reward \d\.\d{3}", shown)
    assert re.search(r"evaluation .*[\d,]+ tokens/s, \d+\.\d GiB, val/accuracy \d\.\d{3}", shown)
    assert re.search(r"iteration .*3/3 +0:\d\d:\d\d, 0:00:00 left", shown)
    checkpoint, run, after = (re.split(" {2,}", line, maxsplit=1)[1] for line in out.splitlines())
    (logged,) = MlflowClient(tracking_uri()).search_runs(["1"])
    assert f"/runs/{logged.info.run_id}" in run and "sqlite:///mlruns/mlflow.db" in run
    command = shlex.split(after)
    assert command[:4] == ["python", "-m", "lit_rl", "test"] and command[-1] == checkpoint
    code, out, err = lit_rl(*command[3:])
    assert code == 0 and "test/accuracy" in out, err


def test_at_the_end_other_loggers_and_runs_without_checkpoints_say_where_they_are(fit, tmp_path):
    logger = CSVLogger(tmp_path, name="csv")
    saved = IterationCheckpoint(dirpath=tmp_path / "kept", save_on_train_epoch_end=True, save_last=True)
    trainer, *_ = fit(RLOO, callbacks=(saved,), trainer={"logger": logger, "enable_checkpointing": True})
    typed = ["--data.task=GSM8KStyle", "--model", "RLOO", "--ckpt_path", "old.ckpt", "--ckpt_path=older.ckpt"]
    checkpoint, run, after = ending(trainer, typed)
    assert checkpoint.endswith(" kept/last.ckpt") and (tmp_path / "kept/last.ckpt").is_file()
    assert run.endswith(" csv/version_0") and (tmp_path / "csv/version_0/metrics.csv").is_file()
    assert after.endswith("python -m lit_rl test --model RLOO --ckpt_path kept/last.ckpt")
    trainer.callbacks[-1] = IterationCheckpoint(dirpath=tmp_path / "again", save_on_train_epoch_end=True)
    trainer.fit(trainer.lightning_module, datamodule=trainer.datamodule, ckpt_path=tmp_path / "kept/last.ckpt")
    assert ending(trainer, [])[0] == checkpoint  # it was finished
    trainer, *_ = fit(RLOO)
    checkpoint, run, after = ending(trainer, [])
    assert "none" in checkpoint and "trainer.logger" in run and "test" not in after
