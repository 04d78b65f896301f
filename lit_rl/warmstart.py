"""Rebuilds the embedded policy of ``data/warmstart``: ``python -m lit_rl.warmstart``, or ``make warmstart``."""

import hashlib
import tempfile
import time
from pathlib import Path

import torch
from lightning import Trainer, seed_everything

from lit_rl.algorithms import Supervised
from lit_rl.callbacks import IterationProgress, RewardCallback
from lit_rl.cli import quiet
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.policy.causal import DATA, CausalPolicy
from lit_rl.policy.embedded import build_config, build_tokenizer
from lit_rl.tasks.answers import strict_answer
from lit_rl.tasks.gsm8k_style import EVENTS, GSM8KStyle

STEPS = 2
PROBLEMS = 65536
ROWS = 64
PHASES = ((64, 3e-3), (16, 1e-3), (16, 2e-4))  # (iterations of 16 updates, learning rate)

CARD = """\
# The embedded policy

A Llama of {parameters:,} parameters with a byte-level tokenizer whose digits are single tokens, warm-started by
supervised learning on `GSM8KStyle(steps={steps})`. Made by `make warmstart` from nothing but the generator's text;
licence MIT, as the rest.

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
learning rates {rates}, in {minutes:.0f} minutes on one CPU thread.
Weights sha256 `{sha}`.
"""


def build(folder: Path = DATA / "warmstart") -> dict[str, float]:
    """Trains the policy, writes it with its tokenizer and card into ``folder``, and returns its test metrics."""
    quiet()
    started = time.perf_counter()
    torch.set_num_threads(1)  # sums in another order would give other weights
    seed_everything(0)
    task = GSM8KStyle(steps=STEPS, train_size=PROBLEMS, test_size=2048)
    texts = [row["question"] + "\n" + row["answer"] for row in task.prompts("train").select(range(4096))]
    tokenizer = build_tokenizer(texts)
    with tempfile.TemporaryDirectory() as empty:
        tokenizer.save_pretrained(empty)
        build_config(tokenizer).save_pretrained(empty)
        policy = CausalPolicy(empty, weights="random")
    data = RolloutDataModule(task, prompts_per_iteration=16 * ROWS, rows_per_microbatch=ROWS, eval_prompts=None)
    for i, (iterations, rate) in enumerate(PHASES):
        data.seed = i
        model = Supervised(
            policy=policy,
            learning_rate=rate,
            warmup_steps=20,
            normalizer="token_mean",
            max_new_tokens=64,
            reference=False,
        )
        options = {**TRAINER_DEFAULTS, "max_epochs": iterations, "check_val_every_n_epoch": iterations, "logger": False}
        trainer = Trainer(
            **options,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=True,
            callbacks=[RewardCallback(), IterationProgress()],
        )
        trainer.fit(model, datamodule=data)
        print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()}, flush=True)
    data.seed = 0
    metrics = trainer.test(model, datamodule=data, verbose=False)[0]
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(_card(policy, task, dict(metrics), folder, time.perf_counter() - started))
    return dict(metrics)


def _card(policy: CausalPolicy, task: GSM8KStyle, metrics: dict[str, float], folder: Path, seconds: float) -> str:
    demonstrations = task.prompts("train").select(range(8192))
    right = [strict_answer(row["demonstration"]) == strict_answer(row["answer"]) for row in demonstrations]
    return CARD.format(
        parameters=sum(p.numel() for p in policy.parameters()),
        steps=STEPS,
        correct=sum(right) / len(right),
        errors="\n".join(
            f"| {e.sentence.format(name='Ann', n='n')} | {e.operator} n | {e.error_rate:.0%}, by {e.wrong_operator} n |"
            for e in EVENTS
        ),
        problems=task.sizes["test"],
        updates=sum(n for n, _ in PHASES) * 16,
        rows=ROWS,
        train=PROBLEMS,
        rates=", ".join(f"{rate:g} for {n * 16:,} batches" for n, rate in PHASES),
        minutes=seconds / 60,
        sha=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        **{name.removeprefix("test/"): value for name, value in metrics.items()},
    )


if __name__ == "__main__":
    print(build())
