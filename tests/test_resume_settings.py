"""What has changed since a checkpoint is said and takes effect, or is refused."""

from pathlib import Path

import pytest
import torch
import yaml
from lightning import Callback, Trainer, seed_everything
from mlflow.tracking import MlflowClient

from lit_rl.algorithms import PPO, RLOO
from lit_rl.callbacks import IterationCheckpoint, RewardCallback
from lit_rl.commands import resume
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.policy import TokenTransformer
from lit_rl.tasks import KeyToken
from lit_rl.tracking.address import tracking_uri

TINY = [
    *("--model=RLOO", "--data.task=KeyToken", "--model.policy=TokenTransformer", "--model.policy.hidden_size=16"),
    *("--model.policy.layers=1", "--data.prompts_per_iteration=4", "--data.rows_per_microbatch=8"),
    *("--data.eval_prompts=4", "--trainer.accelerator=cpu", "--checkpoint.every_n_epochs=1", "--model=RLOO"),
]


def train(make, iterations, folder, settings, callback=None, resumed=None):
    seed_everything(0, verbose=False)
    task = KeyToken()
    policy = TokenTransformer(task.vocabulary, task.length, task.eos_id is not None, hidden_size=16, layers=1)
    saved = IterationCheckpoint(dirpath=folder, save_on_train_epoch_end=True, every_n_epochs=1, save_last=True)
    options = {**TRAINER_DEFAULTS, "max_epochs": iterations, "limit_val_batches": 0, "accelerator": "cpu"}
    trainer = Trainer(
        **options,
        logger=False,
        enable_progress_bar=False,
        callbacks=[RewardCallback(), saved, *([callback] if callback else [])],
    )
    data = RolloutDataModule(task, prompts_per_iteration=8, rows_per_microbatch=8, seed=0)
    model = make(policy=policy, samples=2, max_new_tokens=task.length, reference=False, **settings)
    trainer.fit(model, datamodule=data, ckpt_path=resumed)
    return trainer, model.state_dict()


class Change(Callback):
    """Gives the optimizer other settings behind an iteration, in an undisturbed run: the oracle."""

    def __init__(self, behind, rates, weight_decay):
        self.behind, self.rates, self.weight_decay = behind, rates, weight_decay

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.behind:
            (schedule,) = (config.scheduler for config in trainer.lr_scheduler_configs)
            schedule.base_lrs = self.rates
            for group, rate, factor in zip(
                trainer.optimizers[0].param_groups, self.rates, schedule.lr_lambdas, strict=True
            ):
                group["lr"], group["weight_decay"] = rate * factor(schedule.last_epoch), self.weight_decay


@pytest.mark.parametrize("make", [RLOO, PPO])
def test_a_changed_learning_rate_takes_effect_as_if_it_had_been_changed_in_the_run(tmp_path, make):
    before = {"learning_rate": 1e-3, "warmup_steps": 6}
    after = {"learning_rate": 4e-3, "weight_decay": 0.1, "warmup_steps": 6}
    rates = [4e-3]
    if make is PPO:
        after["critic_learning_rate"] = 2e-2
        rates = [4e-3, 2e-2]
    _, truth = train(make, 4, tmp_path / "a", before, Change(2, rates, 0.1))
    train(make, 2, tmp_path / "b", before)
    resumed, weights = train(make, 4, tmp_path / "b", after, resumed=tmp_path / "b" / "last.ckpt")
    assert all(torch.equal(value, weights[name]) for name, value in truth.items())
    _, same = train(make, 4, tmp_path / "c", before)
    assert not all(torch.equal(value, weights[name]) for name, value in same.items())
    saved = torch.load(tmp_path / "b" / "last.ckpt", weights_only=True)
    assert (
        saved["lr_schedulers"][0]["base_lrs"] == rates == [g["initial_lr"] for g in resumed.optimizers[0].param_groups]
    )


def test_what_has_changed_is_said_and_logged_and_what_cant_change_is_refused(lit_rl, tmp_path, capfd):
    code, _, err = lit_rl("fit", *TINY, "--trainer.max_epochs=1")
    assert code == 0, err
    (last,) = tmp_path.glob("mlruns/checkpoints/*/*/checkpoints/last.ckpt")
    bytes_ = last.read_bytes()
    on = ["--trainer.max_epochs=2", f"--ckpt_path={last}"]
    code, _, err = lit_rl("fit", *TINY, *on, "--data.seed=1")
    (line,) = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and "data.seed was None" in line and "is 1 now, which can't change" in line
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs(["1"])
    assert run.info.status == "FINISHED" and last.read_bytes() == bytes_  # nothing was touched

    code, _, err = lit_rl("fit", *TINY, *on, "--model.learning_rate=0.5", "--model.samples=6")
    assert code == 0, err
    said = {line for line in err.splitlines() if line.startswith("lit_rl: since the checkpoint: ")}
    changed = {"model.learning_rate 0.0002 -> 0.5", "model.samples 4 -> 6", "trainer.max_epochs 1 -> 2"}
    assert said == {f"lit_rl: since the checkpoint: {each}" for each in changed}
    (run,) = client.search_runs(["1"])
    assert set(run.data.tags["lit_rl.changed_from_iteration_2"].split("; ")) == changed
    text = Path(client.download_artifacts(run.info.run_id, "config-from-iteration-2.yaml")).read_text()
    assert yaml.safe_load(text)["model"]["init_args"]["learning_rate"] == 0.5

    saved = torch.load(last, weights_only=True)
    assert resume.changes(saved, text) == {}  # the checkpoint tells what wrote it
    resume.check_changes(saved, text)
    assert capfd.readouterr().err == ""
    for keys, value in {
        ("model", "class_path"): "lit_rl.algorithms.GRPO",
        ("model", "init_args", "policy", "init_args", "layers"): 2,
        ("model", "init_args", "policy"): None,
        ("model", "init_args", "reference"): False,
        ("model", "init_args", "optimizer"): {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}},
        ("seed_everything",): 1,
        ("data", "task", "init_args", "position"): 3,
        ("data", "prompts_per_iteration"): 8,
    }.items():
        config = yaml.safe_load(text)
        group = config
        for key in keys[:-1]:
            group = group[key]
        group[keys[-1]] = value
        with pytest.raises(UsageError, match="ckpt_path: " + ".".join(keys).replace(".init_args", "")):
            resume.check_changes(saved, yaml.safe_dump(config))
    resume.check_changes({}, text)  # an earlier version wrote it
    assert "holds no configuration" in capfd.readouterr().err
