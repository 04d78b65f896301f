"""No host is looked up, no code of a folder runs, no file beside a data folder is read, unless that is asked for."""

import io
import json
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig

from lit_rl.commands.export import export
from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy, RewardModel
from lit_rl.tasks.custom import read

GUARDED = """
import socket, sys
def refuse(*args, **kwargs):
    print("looked up", args[:1], file=sys.stderr)
    raise OSError("no lookups")
socket.getaddrinfo = socket.gethostbyname = refuse
from lit_rl.commands.cli import main
sys.argv = ["lit_rl", *sys.argv[1:]]
code = main()
from ablations.__main__ import main as report
sys.exit(code or (report(["list"]) and 1))
"""
TINY = [
    *("--data.task=KeyToken", "--data.prompts_per_iteration=2", "--data.rows_per_microbatch=4", "--model.samples=2"),
    *("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0"),
]


def test_no_host_is_looked_up_by_a_run(tmp_path):
    run = subprocess.run([sys.executable, "-c", GUARDED, "fit", *TINY], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "looked up" not in run.stderr and (tmp_path / "mlruns/mlflow.db").is_file()


@pytest.fixture
def folder_with_code(tmp_path, policy):
    """A folder whose config, model and tokenizer name code of its own, which leaves a trace when it runs."""
    folder = tmp_path / "theirs"
    LlamaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    trace = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (folder / "code.py").write_text(
        trace + "from transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
        "class Mine(C):\n    model_type = 'mine'\nclass Model(M):\n    config_class = Mine\n"
    )
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Model"}
    auto["AutoModelForSequenceClassification"] = "code.Model"
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": auto}))
    return folder


def test_code_of_a_folder_runs_where_it_is_allowed_alone(folder_with_code, tmp_path, monkeypatch):
    ran, path = tmp_path / "ran", str(folder_with_code)
    torch.save({"state_dict": {}, "policy": {"path": path, "weights": "random", "trust_remote_code": True}}, "a.ckpt")
    for load in (
        lambda: CausalPolicy(path, weights="random"),
        lambda: RewardModel.load(path),
        lambda: export(["--ckpt_path", "a.ckpt", "--output", "out"]),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
        with pytest.raises(UsageError, match="code"):
            load()
        assert not ran.exists()
    CausalPolicy(path, weights="random", trust_remote_code=True)
    assert ran.exists()


@pytest.mark.parametrize("place", ["../secret.jsonl", "{}/secret.jsonl", "https://example.com/secret.jsonl"])
def test_a_data_folder_names_no_file_outside_it(place, tmp_path):
    (tmp_path / "secret.jsonl").write_text('{"prompt": "secret", "answer": "1"}\n')
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "own.jsonl").write_text('{"prompt": "own", "answer": "1"}\n')
    named = place.format(tmp_path)
    files = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": named}]}]}
    (folder / "README.md").write_text(f"---\n{json.dumps(files)}\n---\n")
    with pytest.raises(UsageError, match="data.task.path: .*README.md names .*secret.jsonl"):
        read(str(folder), None)
    files["configs"][0]["data_files"][0]["path"] = "own.jsonl"
    (folder / "README.md").write_text(f"---\n{json.dumps(files)}\n---\n")
    assert read(str(folder), None)["train"]["prompt"] == ["own"]
