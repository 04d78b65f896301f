"""Rebuilds the embedded policies of ``data/`` that solve word problems: ``make warmstart`` (tiny) or ``make mid``."""

import argparse
import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything

from lit_rl.algorithms import Supervised
from lit_rl.callbacks import IterationProgress, RewardCallback
from lit_rl.commands.cli import quiet
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.embedded import build_config, build_tokenizer
from lit_rl.tasks import Task
from lit_rl.tasks.answers import hash_answer
from lit_rl.tasks.gsm8k_style import EVENTS, GSM8KStyle

UPDATES = 16  # an iteration
Phases = tuple[tuple[int, float], ...]  # (iterations of UPDATES updates, learning rate)


@dataclass(frozen=True)
class Rung:
    """One size of policy, the problems it is warm-started on, and how."""

    folder: str  # in data/
    name: str  # of the card
    hidden_size: int
    layers: int
    heads: int
    task: dict[str, Any]  # of GSM8KStyle
    max_new_tokens: int
    rows: int  # a batch
    dtype: str  # of the weights in the file
    phases: Phases


RUNGS = {
    "tiny": Rung(
        "warmstart",
        "The embedded policy",
        hidden_size=96,
        layers=3,
        heads=4,
        task={"steps": 2},
        max_new_tokens=64,
        rows=64,
        dtype="float32",
        phases=((64, 3e-3), (16, 1e-3), (16, 2e-4)),
    ),
    "mid": Rung(
        "mid",
        "The embedded policy of the mid rung",
        hidden_size=256,
        layers=4,
        heads=8,
        task={"steps": 4, "most_steps": 8, "error_scale": 0.6},
        max_new_tokens=208,
        rows=32,
        dtype="float16",
        phases=((16, 1.5e-3), (16, 1.5e-3), (16, 1.5e-3), (16, 5e-4), (16, 1e-4)),
    ),
}
PROBLEMS = 65536

CARD = """\
# {name}

A Llama of {parameters:,} parameters with a byte-level tokenizer whose digits are single tokens, warm-started by
supervised learning on `GSM8KStyle({task})`. Made by `make {command}` from
nothing but the generator's text; licence MIT, as the rest.

**Its demonstrations are wrong on purpose.** In the column `demonstration` each step uses, with the probability in the
table, a wrong operator followed by correct arithmetic (less often where the wrong result would be negative);
{correct:.1%} of the demonstrations end in the right number. Reinforcement learning from this start un-teaches a
planted error: what it gains here is a test of the machinery and of the estimators, not evidence that a language model
learned to reason.

| the sentence | means | demonstrated wrongly |
|---|---|---|
{errors}

| accuracy on {problems} test problems | strict | flexible |
|---|---|---|
| greedy | {accuracy:.1%} | {accuracy_flexible:.1%} |
| sampled, temperature 1 | {accuracy_sampled:.1%} | |

Trained on {updates:,} batches of {rows} problems drawn from {train:,}, AdamW, seed 0,
learning rates {rates},
in {minutes:.0f} minutes on one CPU thread, and stored in {dtype}.
Weights sha256 `{sha}`.
"""


def build(rung: Rung) -> dict[str, float]:
    """Trains the policy, writes it with its tokenizer and card into its folder, and returns its test metrics."""
    started = begin()
    task = GSM8KStyle(**rung.task, train_size=PROBLEMS, test_size=2048)
    texts = [row["question"] + "\n" + row["answer"] for row in task.prompts("train").select(range(4096))]
    tokenizer = build_tokenizer(texts)
    with tempfile.TemporaryDirectory() as empty:
        tokenizer.save_pretrained(empty)
        build_config(tokenizer, rung.hidden_size, rung.layers, rung.heads).save_pretrained(empty)
        policy = CausalPolicy(empty, weights="random")
    teach(policy, task, rung.phases, rung.rows, rung.max_new_tokens)
    policy.model.to(getattr(torch, rung.dtype)).to(torch.float32)  # what is tested is what is stored
    metrics = accuracies(policy, task, rung.max_new_tokens)
    folder = Path("data") / rung.folder
    store(policy, folder, rung.dtype)
    seconds = time.perf_counter() - started
    (folder / "README.md").write_text(_card(rung, policy, task, metrics, folder, seconds))
    return metrics


def begin() -> float:
    """Makes what follows a function of the code alone; returns the time."""
    quiet()
    torch.set_num_threads(1)  # sums in another order would give other weights
    seed_everything(0)
    return time.perf_counter()


def teach(policy: CausalPolicy, task: Task, phases: Phases, rows: int, max_new_tokens: int) -> None:
    """Supervised learning on the task's demonstrations, in updates of ``rows`` problems."""
    data = RolloutDataModule(task, prompts_per_iteration=UPDATES * rows, rows_per_microbatch=rows)
    for i, (iterations, rate) in enumerate(phases):
        data.seed = i
        model = Supervised(
            policy=policy,
            learning_rate=rate,
            warmup_steps=20,
            normalizer="token_mean",
            max_new_tokens=max_new_tokens,
            reference=False,
        )
        trainer = _trainer(max_epochs=iterations, check_val_every_n_epoch=iterations)
        trainer.fit(model, datamodule=data)
        print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()}, flush=True)


def accuracies(policy: CausalPolicy, task: Task, max_new_tokens: int) -> dict[str, float]:
    """The policy's metrics on the whole test split."""
    data = RolloutDataModule(task, eval_prompts=None, seed=0)
    model = Supervised(policy=policy, max_new_tokens=max_new_tokens, reference=False)
    return dict(_trainer().test(model, datamodule=data, verbose=False)[0])


def store(policy: CausalPolicy, folder: Path, dtype: str = "float32") -> None:
    """The policy and its tokenizer, as ``from_pretrained`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.to(getattr(torch, dtype)).save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


def rates(phases: Phases) -> str:
    """The learning rates, in words."""
    return ", ".join(f"{rate:g} for {n * UPDATES:,} batches" for n, rate in phases)


def weights_hash(folder: Path) -> str:
    """Of a card."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _trainer(**options: Any) -> Trainer:
    return Trainer(
        **{**TRAINER_DEFAULTS, "logger": False, **options},
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=True,
        callbacks=[RewardCallback(), IterationProgress()],
    )


def _card(
    rung: Rung, policy: CausalPolicy, task: GSM8KStyle, metrics: dict[str, float], folder: Path, seconds: float
) -> str:
    demonstrations = task.prompts("train").select(range(8192))
    right = [hash_answer(row["demonstration"]) == hash_answer(row["answer"]) for row in demonstrations]
    wrong = [task.error_scale * event.error_rate for event in EVENTS]
    return CARD.format(
        name=rung.name,
        parameters=sum(p.numel() for p in policy.parameters()),
        task=", ".join(f"{name}={value}" for name, value in rung.task.items()),
        command="warmstart" if rung.folder == "warmstart" else rung.folder,
        correct=sum(right) / len(right),
        errors="\n".join(
            f"| {e.sentence.format(name='Ann', n='n')} | {e.operator} n | {rate:.0%}, by {e.wrong_operator} n |"
            for e, rate in zip(EVENTS, wrong, strict=True)
        ),
        problems=task.sizes["test"],
        updates=sum(n for n, _ in rung.phases) * UPDATES,
        rows=rung.rows,
        train=PROBLEMS,
        rates=rates(rung.phases),
        minutes=seconds / 60,
        dtype=rung.dtype,
        sha=weights_hash(folder),
        **{name.removeprefix("test/"): value for name, value in metrics.items()},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lit_rl.commands.warmstart")
    parser.add_argument("rung", nargs="?", choices=RUNGS, default="tiny")
    print(build(RUNGS[parser.parse_args().rung]))
