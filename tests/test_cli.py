"""The command line as a user meets it."""

import json
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from lit_rl.tracking.address import tracking_uri

SMALL = [
    "--data.prompts_per_iteration=4",
    "--data.rows_per_microbatch=8",
    "--data.eval_prompts=4",
    "--model.max_new_tokens=40",
    "--trainer.accelerator=cpu",
    "--trainer.check_val_every_n_epoch=1",
]
METRICS = {
    *("train/reward", "val/accuracy", "val/accuracy_flexible", "val/accuracy_sampled"),
    *("policy/kl", "policy/entropy", "policy/clip_fraction", "response/length", "response/truncated"),
    *("tokens/generated", "time/sample", "time/score", "time/update", "group/zero_advantage"),
    *("gradient/trace_cov", "gradient/norm_sq", "gradient/relative_variance", "gradient/snr"),
}


def runs():
    client = MlflowClient(tracking_uri())
    return client, [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]


def test_fit_logs_every_metric_against_iterations_with_config_and_transcripts(lit_rl, tmp_path):
    code, _, err = lit_rl("fit", "--model", "GRPO", "--data.task", "GSM8KStyle", "--trainer.max_epochs=2", *SMALL)
    assert code == 0, err
    client, (run,) = runs()
    assert run.info.status == "FINISHED" and METRICS <= set(run.data.metrics)
    for name in ("train/reward", "val/accuracy", "tokens/generated"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == [1, 2]
    config = yaml.safe_load(Path(client.download_artifacts(run.info.run_id, "config.yaml")).read_text())
    assert config["model"]["class_path"].endswith("GRPO") and config["data"]["prompts_per_iteration"] == 4
    assert run.data.params["model/class_path"].endswith("GRPO")
    assert list(tmp_path.glob("mlruns/checkpoints/*/*/checkpoints/last.ckpt"))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(config))
    assert lit_rl("fit", "--config", str(again))[0] == 0
    histories = [client.get_metric_history(r.info.run_id, "train/reward") for r in runs()[1]]
    assert len({tuple(point.value for point in history) for history in histories}) == 1  # the config repeats the run


def test_fit_on_a_file_of_problems_from_a_config_alone(lit_rl, tmp_path):
    lines = [{"question": f"Ann has {i} pens and buys 2. How many now?", "answer": f"#### {i + 2}"} for i in range(20)]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file = ["--data.task", "GSM8K", "--data.task.path", "problems.jsonl"]
    code, _, err = lit_rl("fit", *file, "--model.policy.weights=random", "--trainer.max_epochs=2", *SMALL)
    assert code == 0, err
    client, (run,) = runs()
    assert run.info.status == "FINISHED"
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "transcripts.json")).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 3 and all(row["reward"] in (0, 1) and row["response"] for row in rows)
    assert len({row["prompt"] for row in rows}) == 3


@pytest.mark.parametrize(
    "args, named",
    [
        (["fit", "--model", "GRPP"], "model: no class 'GRPP' (did you mean GRPO?)"),
        (["fit", "--data.task", "GSM8"], "data.task: no class 'GSM8' (did you mean GSM8K?)"),
        (["fit", "--model.sampels", "3"], "model.sampels"),
        (["fit", "--model.samples", "many"], "model.samples"),
        (["fit", "--model", "RLOO", "--model.samples", "1"], "model.samples is 1"),
        (["fit", "--model.temperature", "0"], "model.temperature"),
        (["fit", "--model.max_new_tokens", "2040"], "model.max_new_tokens is 2040"),
        (["fit", "--data.task.steps", "9"], "data.task.steps is 9"),
        (["fit", "--model.policy.path", "./nowhere"], "model.policy.path"),
        (["fit", "--model.kl_coefficient=0.1", "--model.reference=false"], "model.reference"),
        (["fit", "--data.rows_per_microbatch", "33"], "data.rows_per_microbatch"),
        (["fit", "--trainer.max_steps", "3"], "trainer.max_steps"),
        (["fit", "--trainer.strategy", "fsdp"], "trainer.strategy fsdp"),
        (["fit", "--trainer.enable_checkpointing", "false"], "trainer.enable_checkpointing is False"),
        (["fit", "--model.policy.lora_alpha", "8"], "model.policy.lora_alpha is 8"),
        (["fit", "--checkpoint.save_on_train_epoch_end", "false"], "checkpoint.save_on_train_epoch_end"),
        (["fit", "--ckpt_path", "nowhere.ckpt"], "ckpt_path: no file nowhere.ckpt"),
        (["fit", "--ckpt_path", "last"], "ckpt_path: no file last"),
        (["fit", "--ckpt_path", __file__], "is no checkpoint"),
        (["fit", "--data.seed", "-1"], "data.seed is -1"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", "--data.task", "GSM8K", "--data.task.path", "nowhere.jsonl"], "data.task.path: no file nowhere.jsonl"),
        (["--config", "all.yaml", "fit"], "--config stands behind the subcommand"),
        (["fit", "--conf", "all.yaml"], "--conf"),
        (["fit", "--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches is 0"),
        (["fit", "--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch is 0"),
        (["fit", "--trainer.devices", "abc"], "trainer.devices is abc"),
        (["fit", "--trainer.accelerator", "gpux"], "trainer.accelerator is gpux"),
        (["fit", "--trainer.precision", "64-true"], "trainer.precision 64-true"),
        (["fit", "--trainer.barebones", "true"], "trainer.barebones"),
        (["fit", "--trainer.logger", "WandbLogger"], "trainer.logger WandbLogger: Requirement 'wandb"),
        (["fit", "--trainer.max_epochs", "many"], "trainer.max_epochs is many; choose a whole number or null"),
        (["fit", "--model.normalizer", "x"], "is x; choose row_sum, sequence_mean, token_mean or constant"),
        (["train"], "train"),
    ],
    ids=lambda value: " ".join(value[1:3]) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line_and_exit_code_2(lit_rl, args, named):
    code, _, err = lit_rl(*args)
    said = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and len(said) == 1 and named in said[0] and "Traceback" not in err
    assert all(run.info.status == "FAILED" for run in runs()[1])


@pytest.mark.parametrize("uri", ["postgresql://a/b", "sqlite://", "sqlite:///", "foo://bar", "mlruns"])
def test_a_tracking_uri_that_cannot_be_used(lit_rl, monkeypatch, tmp_path, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, _, err = lit_rl("fit", *SMALL)
    (said,) = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and "MLFLOW_TRACKING_URI" in said and uri in said and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_mistake_shows_where_it_was_found_on_demand(lit_rl, monkeypatch):
    args = ["fit", "--trainer.devices", "abc", "--trainer.accelerator", "cpu", "--trainer.logger", "false"]
    assert "Traceback" not in lit_rl(*args)[2]
    monkeypatch.setenv("LIT_RL_DEBUG", "1")
    code, _, err = lit_rl(*args)
    assert code == 2 and "Traceback" in err and "parse_cpu_cores" in err
    assert err.splitlines()[-1].startswith("lit_rl: trainer.devices is abc")


def test_no_checkpoint_is_written_where_none_is_wanted(lit_rl, tmp_path):
    assert lit_rl("fit", "--trainer.max_epochs=1", "--checkpoint.every_n_epochs=0", *SMALL)[0] == 0
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_resumed_run_goes_on_in_its_mlflow_run_and_evaluation_keeps_its_iteration(lit_rl, tmp_path):
    assert lit_rl("fit", "--trainer.max_epochs=3", "--checkpoint.every_n_epochs=2", *SMALL)[0] == 0
    (last,) = tmp_path.glob("mlruns/checkpoints/*/*/checkpoints/last.ckpt")
    code, _, err = lit_rl("fit", "--trainer.max_epochs=5", "--ckpt_path", str(last), *SMALL)
    assert code == 0, err
    assert [path.name for path in last.parent.glob("last*")] == ["last.ckpt"]  # written over, not beside
    client, (run,) = runs()
    assert run.info.status == "FINISHED"
    rewards, tokens = (client.get_metric_history(run.info.run_id, n) for n in ("train/reward", "tokens/generated"))
    assert [point.step for point in rewards] == [1, 2, 3, 4, 5]
    assert [point.value for point in tokens] == sorted({point.value for point in tokens})
    code, out, err = lit_rl("test", "--ckpt_path", str(last), *[arg for arg in SMALL if "check_val" not in arg])
    assert code == 0, err
    tested = next(r for r in runs()[1] if "test/accuracy" in r.data.metrics)
    assert client.get_metric_history(tested.info.run_id, "test/accuracy")[0].step == 5


def test_unreachable_tracking_server(lit_rl, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("LIT_RL_MLFLOW_PATIENCE", "0.1")
    code, _, err = lit_rl("fit", *SMALL)
    assert code == 2 and "MLFLOW_TRACKING_URI: no server answers at http://127.0.0.1:9" in err
    assert not list(tmp_path.iterdir())


def test_printed_config_is_complete_and_algorithms_do_not_leak_their_defaults(lit_rl):
    _, out, _ = lit_rl("fit", "--print_config")
    grpo = yaml.safe_load(out)
    assert grpo["model"]["class_path"].endswith("GRPO") and grpo["model"]["init_args"]["clip_low"] == 0.2
    assert grpo["data"]["task"]["class_path"].endswith("GSM8KStyle")
    _, out, _ = lit_rl("fit", "--model", "RLOO", "--print_config")
    rloo = yaml.safe_load(out)["model"]["init_args"]
    assert rloo["clip_low"] is None and rloo["normalizer"] == "row_sum" and rloo["samples"] == 4


def test_help_reaches_every_algorithm_and_task(lit_rl):
    _, out, _ = lit_rl("fit", "--help")
    shown = [line for line in out.splitlines() if line.startswith("  --")]  # below them may stand long lists of classes
    assert "--model" in out and "--data.prompts_per_iteration" in out and len(shown) < 60
    _, out, _ = lit_rl("fit", "--model.help", "GRPO")
    assert "scale_by_std" in out and "learning_rate" in out and "kl_coefficient" in out
    _, out, _ = lit_rl("fit", "--data.task.help", "GSM8KStyle")
    assert "steps" in out
