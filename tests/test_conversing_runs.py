"""Runs on tasks with an environment: the documentation's own example, and going on from a checkpoint."""

import json
import re
from pathlib import Path

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient

from lit_rl.algorithms import RLOO, TRePO
from lit_rl.callbacks import RewardCallback, Transcripts
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Turns
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import GuessNumber
from lit_rl.tasks.guess_number import Hints
from lit_rl.tracking.address import tracking_uri

PAGE = Path(__file__).resolve().parents[1] / "docs/own_environment.md"
SMALL = {
    **{"data.prompts_per_iteration": 3, "data.rows_per_microbatch": 6, "data.eval_prompts": 2, "model.samples": 2},
    **{"trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1, "trainer.accelerator": "cpu"},
    **{"checkpoint.every_n_epochs": 0, "diagnostics.every_n_iterations": 0, "transcripts.responses": 3},
}


def test_the_documented_environment_trains(lit_rl, tmp_path, monkeypatch):
    """Its turns stand in the transcripts, and a response's reward is what they were paid."""
    text = PAGE.read_text()
    (block,) = re.findall(r"^```python\n(# my_game\.py\n.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (command,) = re.findall(r"^    python -m lit_rl (fit .*my_game.*)$", text, re.MULTILINE)
    easier = block.replace("right = text.strip() == str(self.total)", "right = len(text) % 3 > 0")
    (tmp_path / "my_game.py").write_text(easier)
    monkeypatch.syspath_prepend(tmp_path)
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    code, _, err = lit_rl(*command.split(), *options)
    assert code == 0, err
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "transcripts.json")).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 3 and any("\n[environment]\nRight. What is " in row["response"] for row in rows)
    for row in rows:
        paid = [float(reward) for reward in row["turn_rewards"].split(", ")]
        assert row["reward"] == sum(paid) and len(paid) == row["response"].count("[policy]\n") <= 2
    assert 0 < run.data.metrics["train/reward"] <= 2 and "val/accuracy" in run.data.metrics


def train(algorithm, *callbacks, logger=False, task=GuessNumber, **settings):
    """One iteration of guessing numbers."""
    sizes = {"prompts_per_iteration": 2, "rows_per_microbatch": 4}
    data = RolloutDataModule(task(4, train_size=20), **(sizes | settings))
    options = {**TRAINER_DEFAULTS, "max_epochs": 1, "limit_val_batches": 0, "logger": logger}
    options |= {"accelerator": "cpu", "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(**options, callbacks=list(callbacks))
    trainer.fit(algorithm, datamodule=data)
    return trainer


class Learned(RewardCallback):
    """What it says counts as a reward model's."""

    def score(self, *args):
        rewards = super().score(*args)
        self.reward_model = self
        return rewards


class Tables(MLFlowLogger):
    """Keeps tables, and nothing else."""

    def __init__(self):
        super().__init__(run_id="none", tracking_uri="http://localhost:1")
        self.tables = {}

    experiment = property(lambda self: self)
    log_metrics = log_hyperparams = finalize = lambda self, *args, **kwargs: None

    def log_table(self, run, table, name):
        self.tables[name] = table


def test_rewards_that_are_shuffled_have_a_task_score_and_transcripts():
    kept = Tables()
    trainer = train(RLOO(samples=2, max_new_tokens=30), Learned(shuffle=True), Transcripts(), logger=kept)
    found = trainer.callback_metrics
    torch.testing.assert_close(found["train/task_score"], found["train/reward"])
    table = kept.tables["transcripts.json"]
    assert len(table["reward"]) == 2 and not {"score_flexible", "turn_rewards"} & set(table)


class Curt(Hints):
    """Opens with other words than the example's."""

    def reset(self, example):
        super().reset(example)
        return [{"role": "user", "content": "Guess a number."}]


class CurtGame(GuessNumber):
    def environment(self, example):
        return Curt(self.largest, self.guesses)


def test_transcripts_show_the_prompt_that_was_answered():
    kept = Tables()
    train(RLOO(samples=2, max_new_tokens=30), RewardCallback(), Transcripts(), logger=kept, task=CurtGame)
    assert kept.tables["transcripts.json"]["prompt"] == ["Guess a number."] * 2


def test_a_sampler_that_lets_nobody_speak_is_refused_before_the_first_iteration():
    class Alone(LocalSampler):
        def sample(self, policy, prompts, plan, streams, progress=None):
            raise NotImplementedError

    with pytest.raises(UsageError, match="data.sampler: Alone.sample takes no environments"):
        train(RLOO(samples=2, max_new_tokens=30), RewardCallback(), sampler=Alone())


def test_a_run_that_goes_on_is_the_run_that_never_ended(tmp_path):
    """TRePO with cuts at turns, to the bit."""

    def run(iterations, resume=None):
        seed_everything(0, verbose=False)
        algorithm = TRePO(samples=2, cuts=Turns(), continuations=1, max_new_tokens=100)
        data = RolloutDataModule(GuessNumber(4, train_size=20), prompts_per_iteration=2, rows_per_microbatch=4)
        options = {**TRAINER_DEFAULTS, "max_epochs": iterations, "limit_val_batches": 0, "logger": False}
        options |= {"accelerator": "cpu", "enable_progress_bar": False, "enable_checkpointing": False}
        trainer = Trainer(**options, callbacks=[RewardCallback()])
        trainer.fit(algorithm, datamodule=data, ckpt_path=resume, weights_only=True)
        assert torch.equal(data.rollouts.rewards, data.rollouts.turn_rewards.sum(1))
        return trainer, data

    trainer, _ = run(1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    (resumed, again), (whole, data) = run(2, tmp_path / "one.ckpt"), run(2)
    assert data.rollouts.spoken.any() and (data.rollouts.origin >= 0).any()
    assert torch.equal(data.rollouts.response_ids, again.rollouts.response_ids)
    assert (data.generated, data.continued, data.prefilled) == (again.generated, again.continued, again.prefilled)
    ours, theirs = (each.lightning_module.state_dict() for each in (whole, resumed))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
