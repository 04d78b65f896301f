"""A real model on real problems, end to end: ``make real``; takes half an hour, and is not in ``make test``.

GSM8K's lines come from the JSONL file that the environment variable GSM8K names, without it from the hub.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_rl.policy import CausalPolicy
from lit_rl.policy.causal import DATA

MODEL = DATA / "smollm2"
SCORER = "def reward(example, ids, text):\n    return sum(letter.isdigit() for letter in text) / 10\n"  # always spread
FEW = {
    "data.prompts_per_iteration": 2,
    "data.rows_per_microbatch": 2,
    "data.eval_prompts": 2,
    "model.policy.path": MODEL,
    "model.samples": 2,
    "model.max_new_tokens": 24,
    "trainer.accelerator": "cpu",
    "trainer.check_val_every_n_epoch": 2,
    "checkpoint.dirpath": "checkpoints",
}
TASKS = {
    "GSM8K": {"data.task": "GSM8K", **({"data.task.path": os.environ["GSM8K"]} if "GSM8K" in os.environ else {})},
    "GSMSymbolic": {"data.task": "GSMSymbolic", "data.task.train_size": 32, "data.task.val_size": 8},
}


def lit_rl(folder: Path, command: str, settings: dict) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    args = [f"--{name}={value}" for name, value in settings.items()]
    run = [sys.executable, "-m", "lit_rl", command, *args]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def runs(folder: Path):
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    return client, client.search_runs([each.experiment_id for each in client.search_experiments()])


@pytest.fixture(scope="module", params=TASKS)
def settings(request):
    if request.param == "GSMSymbolic":
        pytest.importorskip("reasoning_gym")
    return {**FEW, **TASKS[request.param], "reward.scorer": "digits.reward", "trainer.max_epochs": 2}


@pytest.mark.parametrize("model", ["GRPO", "RLOO", "TRePO"])
def test_it_trains_for_two_iterations_and_tells_what_it_said(tmp_path, settings, model):
    (tmp_path / "digits.py").write_text(SCORER)
    lit_rl(tmp_path, "fit", {"model": model, **settings})
    client, [run] = runs(tmp_path)
    assert run.info.status == "FINISHED"
    path = client.download_artifacts(run.info.run_id, "transcripts.json")
    table = json.loads(Path(path).read_text())
    said = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(said) == 2 and all(len(row["response"]) > 20 and "?" in row["prompt"] for row in said)
    print(model, settings["data.task"], json.dumps(said[0], indent=1))
    metrics = run.data.metrics
    rewards = client.get_metric_history(run.info.run_id, "train/reward")
    assert [point.step for point in rewards] == [1, 2] and {"val/accuracy", "policy/kl", "gradient/trace_cov"} <= set(
        metrics
    )
    trained, start = saved(tmp_path), CausalPolicy(str(MODEL)).state_dict()
    assert any((trained[f"policy.{name}"] != value).any() for name, value in start.items())


def saved(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_validate_test_resume_and_export(tmp_path):
    (tmp_path / "digits.py").write_text(SCORER)
    settings = {"model": "GRPO", **FEW, **TASKS["GSM8K"], "reward.scorer": "digits.reward"}
    lit_rl(tmp_path, "fit", {**settings, "trainer.max_epochs": 1})
    last = "checkpoints/last.ckpt"
    for command in ("validate", "test"):
        done = lit_rl(tmp_path, command, {**settings, "ckpt_path": last})
        assert ("val" if command == "validate" else "test") + "/accuracy" in done.stdout
    before = saved(tmp_path)
    lit_rl(tmp_path, "fit", {**settings, "trainer.max_epochs": 2, "ckpt_path": last})
    weights = saved(tmp_path)
    assert any((weights[name] != before[name]).any() for name in weights)
    lit_rl(tmp_path, "export", {"ckpt_path": last, "output": "exported"})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    policy = CausalPolicy(str(MODEL))
    policy.load_state_dict({name.removeprefix("policy."): value for name, value in weights.items()})
    chat = [{"role": "user", "content": "What is 2 + 3?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == policy.encode_prompt(chat)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, policy.model.eval()(input_ids=ids).logits)
