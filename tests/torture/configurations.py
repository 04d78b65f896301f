"""Wrong configurations: what a user may mistype, name or leave out, each through the command line itself."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from trials import Trial

from lit_rl.__main__ import main

PROMISE = "A wrong setting is one line that names it, exit code 2, and no run starts"
TINY = {
    **{"data.task": "KeyToken", "data.prompts_per_iteration": 2, "data.rows_per_microbatch": 4, "model.samples": 2},
    **{"trainer.max_epochs": 1, "trainer.accelerator": "cpu", "trainer.limit_val_batches": 0},
}
TEXT = {
    **TINY,
    "data.task": "GSM8KStyle",
    "data.task.train_size": 16,
    "data.task.val_size": 4,
    "data.task.test_size": 4,
}
OF_TYPE = {  # what they take, and what they don't
    "x": [
        *("seed_everything", "trainer.max_epochs", "trainer.num_nodes", "trainer.precision", "trainer.detect_anomaly"),
        *("trainer.limit_test_batches", "trainer.log_every_n_steps", "trainer.accumulate_grad_batches"),
        *("trainer.gradient_clip_val", "trainer.check_val_every_n_epoch", "trainer.deterministic", "trainer.benchmark"),
        *("trainer.inference_mode", "trainer.fast_dev_run", "trainer.barebones", "trainer.enable_progress_bar"),
        *("model.samples", "model.temperature", "model.max_new_tokens", "model.passes", "model.normalizer"),
        *("model.clip_low", "model.clip_high", "model.kl_coefficient", "model.kl", "model.reference", "model.betas"),
        *("model.learning_rate", "model.weight_decay", "model.warmup_steps", "model.scale_by_std", "model.schedule"),
        *("data.prompts_per_iteration", "data.rows_per_microbatch", "data.eval_prompts", "data.eval_rows", "data.seed"),
        *("data.stream", "reward.shuffle", "diagnostics.every_n_iterations", "value_accuracy.every_n_iterations"),
        *("checkpoint.every_n_epochs", "checkpoint.save_last", "checkpoint.save_top_k"),
        *("credit.every_n_iterations", "gradient_variance.every_n_iterations"),
    ],
    "[1, 2]": [
        "model.samples",
        "model.temperature",
        "model.kl",
        "data.eval_prompts",
        "trainer.max_epochs",
        "data.seed",
    ],
    "{a: 1}": ["model.samples", "model.clip_low", "data.eval_rows", "trainer.devices", "trainer.max_epochs"],
    "1.5": ["model.samples", "model.passes", "data.eval_prompts", "trainer.max_epochs", "data.prompts_per_iteration"],
    "null": ["model.samples", "model.temperature", "data.eval_rows", "data.prompts_per_iteration"],
}
MISSPELT = [
    *("modle.samples", "model.sampels", "model.Samples", "model.learning-rate", "dat.task", "data.taks", "data.seeds"),
    *("trainer.max_epoch", "trainer.epochs", "trainer.gpus", "rewards.scorer", "reward.scorers", "checkpoint.dirpaths"),
    *("budget.iterations", "credit.every", "diagnostics.every", "transcripts.all", "value_accuracy.every", "ckptpath"),
    *("seed", "conf", "lr", "data.task.step", "data.sampler.row", "logger", "callbacks", "model.optimiser"),
]
CLASSES = {
    **{"model": ["GRPP", "Grpo", "Algorithm", "mine.Algorithm", "lit_rl.algorithms.GRPP", "datetime.datetime", "1"]},
    "data.task": ["GSM8", "Task", "mine.Task", "lit_rl.tasks.Nope", "datetime.datetime"],
    "data.sampler": ["Local", "mine.Sampler", "datetime.datetime"],
    "model.policy": ["Causal", "mine.Policy", "lit_rl.policy.Nope", "datetime.datetime"],
    "model.optimizer": ["SGDD", "mine.Optimizer", "torch.optim.Nope", "datetime.datetime", "LBFGS", "Muon"],
    "trainer.logger": ["WandbLogger", "CometLogger", "Nope", "mine.Logger", "datetime.datetime"],
    "trainer.callbacks": ["Nope", "mine.Callback", "datetime.datetime", "EarlyStopping", "StochasticWeightAveraging"],
    "reward.scorer": ["nope", "mine.scorer", "math.nope", "math.pi"],
    "trainer.strategy": ["nope", "fsdp", "deepspeed", "ModelParallelStrategy"],
    "trainer.profiler": ["nope"],
    "trainer.accelerator": ["gpux", "cuda", "tpu"],
    "trainer.devices": ["abc", "0", "-3"],
    "trainer.precision": ["64-true", "64", "16-true", "bf16-true", "transformer-engine", "8"],
    "trainer.gradient_clip_algorithm": ["x"],
    "trainer.barebones": ["true"],
    "trainer.fast_dev_run": ["true"],
    "trainer.max_steps": ["3"],
    "trainer.limit_train_batches": ["1"],
    "trainer.enable_checkpointing": ["false"],
    "trainer.reload_dataloaders_every_n_epochs": ["0"],
    "trainer.max_time": ["x"],
    "trainer.val_check_interval": ["-1"],
    "trainer.accumulate_grad_batches": ["0"],
    "trainer.check_val_every_n_epoch": ["0"],
    "checkpoint.save_on_train_epoch_end": ["false"],
    "ckpt_path": ["nowhere.ckpt", ".", "last", "binary"],
    "config": ["nowhere.yaml", ".", "binary", "list.yaml", "broken.yaml", "unknown.yaml"],
}
POLICIES = {
    "model.policy.path": ["./nowhere", "./empty", "binary", "/proc/nowhere", "~/nowhere", "no/such-model"],
    "model.policy.dtype": ["float64", "int8", "float16"],
    "model.policy.weights": ["none"],
    "model.policy.lora_rank": ["-1", "x"],
    "model.policy.lora_alpha": ["8"],
    "model.policy.trust_remote_code": ["maybe"],
    "model.start": ["nowhere.ckpt", "binary"],
    "data.task.steps": ["9", "x"],
    "data.task.path": ["nowhere"],
    "reward.model": ["./nowhere"],
}
ARITHMETIC = {
    "data.task.terms": ["x", "[1]", "[]", "3"],
    "data.task.largest": ["0", "x"],
    "data.task.operators": ["+/"],
    "data.task.answer": ["first"],
}
URIS = [
    *("postgresql://u:p@localhost/db", "mysql://x/y", "mssql://a", "sqlite://", "sqlite:///", "foo://bar", "s3://b"),
    *("databricks", "mlruns", "file:///tmp", "sqlite:////proc/x/y.db"),
]
LINES = {
    "missing": None,
    "empty": "",
    "text": "no JSON",
    "list": "[1]",
    "question": json.dumps({"answer": "#### 1"}),
    "answer": json.dumps({"question": "1?"}),
    "number": json.dumps({"question": "1?", "answer": "one"}),
    "few": json.dumps({"question": "1?", "answer": "#### 1"}),
}


def said(args: list[str]) -> tuple[Any, list[str], str]:
    """The exit code, the lines that are ours, and all of stderr."""
    sys.argv[1:] = args
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            code: Any = main()
        except SystemExit as exit_:
            code = exit_.code
    return code, [line for line in err.getvalue().splitlines() if line.startswith("lit_rl: ")], err.getvalue()


def refused(args: list[str], name: str, folder: Path, **environment: str) -> None:
    """Runs the command line in the folder, which has some files that are no settings, checkpoints or models."""
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "list.yaml").write_text("- 1")
    (folder / "broken.yaml").write_text("model: [")
    (folder / "unknown.yaml").write_text("modle: GRPO")
    (folder / "empty").mkdir()
    before, old, here = sorted(folder.rglob("*")), dict(os.environ), os.getcwd()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        code, lines, err = said(args)
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(old)
    assert code == 2, f"exit code {code}"
    assert "Traceback" not in err and len(lines) == 1, f"{len(lines)} lines: {err[-500:]}"
    assert name in lines[0], f"no '{name}' in: {lines[0]}"
    database = {"mlruns", "mlflow.db", "mlflow.db.lock"}  # without a run
    written = {each.name for each in set(folder.rglob("*")) - set(before)} - database
    assert not written, f"written: {sorted(written)}"


def fit(changes: dict[str, Any], base: dict[str, Any] = TINY) -> list[str]:
    return ["fit", *(f"--{key}={value}" for key, value in {**base, **changes}.items())]


def trials() -> Iterator[Trial]:
    def trial(key: str, value: Any, name: str, base: dict[str, Any] = TINY, **environment: str) -> Trial:
        case = f"{' '.join(f'{k} {v}' for k, v in environment.items())}{key} {value}".strip()
        return Trial(PROMISE, case, partial(refused, fit({key: value} if key else {}, base), name, **environment))

    for value, keys in OF_TYPE.items():
        yield from (trial(key, value, key) for key in keys)
    yield from (trial(key, 1, key.split(".")[-1]) for key in MISSPELT)
    for key, values in CLASSES.items():
        yield from (
            trial(key, value, value if key == "config" else key.removeprefix("trainer."))
            for value in values
            if value != "unknown.yaml"
        )
    yield trial("config", "unknown.yaml", "modle")
    for key, values in POLICIES.items():
        yield from (trial(key, value, key.removesuffix(".path"), TEXT) for value in values)
    for key, values in ARITHMETIC.items():
        yield from (trial(key, value, key, {**TEXT, "data.task": "Arithmetic"}) for value in values)
    yield from (trial("", "", "MLFLOW_TRACKING_URI", MLFLOW_TRACKING_URI=uri) for uri in URIS)
    for name, line in LINES.items():
        yield Trial(PROMISE, f"a file of problems: {name}", partial(problems, line))
    for args in (["train"], ["predict"], ["export"], ["fit-reward"], ["verify", "--model", "GRPP"], ["fit", "extra"]):
        yield Trial(PROMISE, " ".join(args), partial(refused, args, args[-1].removeprefix("--") if args[1:] else ""))


def problems(line: str | None, folder: Path) -> None:
    if line is not None:
        (folder / "problems.jsonl").write_text(line + "\n")
    changes = {"data.task": "GSM8K", "data.task.path": "problems.jsonl", "trainer.logger": "false"}
    refused(fit(changes), "data.task.path", folder)


TRIALS = list(trials())
