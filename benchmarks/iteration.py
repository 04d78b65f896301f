"""Iterations of GRPO, ours or TRL's, in a process of their own: ``python -m benchmarks.iteration ours|trl``.

The same model, prompts, lengths, temperature and updates: 32 prompts x 8 responses of at most 64 tokens, one optimizer
step over 4 micro-batches, no reference. Prints the seconds of each iteration but the first, and the process's peak.
"""

import itertools
import json
import sys
import tempfile
import time
import warnings
from typing import Any

import torch

from benchmarks.measure import fit, peak
from lit_rl.commands.cli import quiet
from lit_rl.policy import CausalPolicy
from lit_rl.tasks import GSM8KStyle

PROMPTS, SAMPLES, MOST, ROWS, ITERATIONS = 32, 8, 64, 64, 5


def ours() -> list[float]:
    from lit_rl.algorithms import GRPO

    return fit(GRPO(samples=SAMPLES, max_new_tokens=MOST, reference=False), PROMPTS, ROWS, ITERATIONS, accumulate=4)


def trl() -> list[float]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    task, policy = GSM8KStyle(), CausalPolicy()
    examples = list(task.prompts("train").select(range(PROMPTS * ITERATIONS)))
    ends: list[float] = []

    def reward(completions: Any, completion_ids: Any, number: Any, **_: Any) -> Any:
        texts = [messages[0]["content"] for messages in completions]
        rows = zip(number, completion_ids, texts, strict=True)
        return [task.score(examples[i], torch.tensor(ids), text) for i, ids, text in rows]

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            num_generations=SAMPLES,
            per_device_train_batch_size=ROWS,
            gradient_accumulation_steps=4,
            max_completion_length=MOST,
            max_steps=ITERATIONS,
            beta=0.0,
            temperature=1.0,
            top_k=0,
            learning_rate=2e-4,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        rows = Dataset.from_list([{"prompt": each["prompt"], "number": i} for i, each in enumerate(examples)])
        trainer = GRPOTrainer(
            policy.model,
            reward,
            args=config,
            train_dataset=rows,
            processing_class=policy.tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    return [after - before for before, after in itertools.pairwise(ends)]


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    spent = {"ours": ours, "trl": trl}[sys.argv[1]]()
    print(json.dumps({"seconds": spent, "peak": peak()}))
