"""Callbacks of the user's run beside ours, from the command line and in a study's cell."""

import json

import pytest
from mlflow.tracking import MlflowClient

from ablations.config import merge
from lit_rl.callbacks import Memory, RewardCallback
from lit_rl.commands.cli import CLI
from lit_rl.tracking.address import tracking_uri

MINE = """
from lightning import Callback

class Says(Callback):
    def __init__(self, word="said"):
        self.word = word

    def on_train_epoch_end(self, trainer, pl_module):
        print(self.word, trainer.current_epoch, float(trainer.datamodule.rollouts.rewards.mean()) >= 0)
"""
TINY = {
    "trainer.max_epochs": 2,
    "trainer.accelerator": "cpu",
    "trainer.limit_val_batches": 0,
    "checkpoint.every_n_epochs": 0,
    "data.task": "KeyToken",
    "data.prompts_per_iteration": 2,
    "data.rows_per_microbatch": 4,
    "model.samples": 2,
    "diagnostics.every_n_iterations": 0,
}
ARGS = [f"--{key}={value}" for key, value in TINY.items()]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module with a callback that speaks."""
    (tmp_path / "spoken.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "spoken.Says"


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: [f"--trainer.callbacks={name}", "--trainer.callbacks.word=said"],
        lambda name: [f"--trainer.callbacks+={name}", "--trainer.callbacks.word=said"],
        lambda name: ["--trainer.callbacks", json.dumps([{"class_path": name, "init_args": {"word": "said"}}])],
    ],
    ids=["class path", "appended", "JSON"],
)
def test_ones_own_callback_runs_in_a_fit(lit_rl, mine, spelling):
    code, out, err = lit_rl("fit", *ARGS, "--trainer.logger=false", *spelling(mine))
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("said")] == ["said 0 True", "said 1 True"]


def test_ones_own_callback_runs_in_a_cell_beside_ours(mine, capsys):
    base = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "limit_val_batches": 0, "logger": False},
        "model": {"class_path": "RLOO", "init_args": {"samples": 2}},
        "data": {"task": {"class_path": "KeyToken"}, "prompts_per_iteration": 2, "rows_per_microbatch": 4},
        "checkpoint": {"every_n_epochs": 0},
    }
    arm = {"trainer": {"callbacks": [{"class_path": mine}], "enable_progress_bar": False}}
    cli = CLI(args=merge(base, arm), run=False)
    assert {Memory, RewardCallback} <= {type(callback) for callback in cli.trainer.callbacks}
    cli.trainer.fit(cli.model, cli.datamodule)
    assert "said 0 True" in capsys.readouterr().out.splitlines()


def test_lightnings_callbacks_run_or_are_refused_in_a_line(lit_rl):
    stop = ["EarlyStopping", "--trainer.callbacks.monitor=train/reward", "--trainer.callbacks.mode=max"]
    args = ["--trainer.callbacks+=LearningRateMonitor", f"--trainer.callbacks+={stop[0]}", *stop[1:]]
    when = ["--trainer.callbacks.stopping_threshold=-1", "--trainer.callbacks.check_on_train_epoch_end=true"]
    code, _, err = lit_rl("fit", *ARGS, *args, *when)
    assert code == 0, err
    client = MlflowClient(tracking_uri())
    (run,) = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    assert len(client.get_metric_history(run.info.run_id, "train/reward")) == 1  # stopped after the first iteration
    assert any(name.startswith("lr-") for name in run.data.metrics)
    swa = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=1e-4"]
    code, _, err = lit_rl("fit", *ARGS, "--trainer.logger=false", *swa)
    (line,) = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and "trainer.callbacks: StochasticWeightAveraging" in line
