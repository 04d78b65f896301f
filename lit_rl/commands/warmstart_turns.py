"""Rebuilds ``data/turns``, the embedded policy of the tasks of several turns: ``make turns``."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from lit_rl.commands.warmstart import UPDATES, Phases, accuracies, begin, rates, store, teach, weights_hash
from lit_rl.policy.causal import CausalPolicy
from lit_rl.tasks import AskForMissing, Calculator, Environment, GuessNumber, Task
from lit_rl.tasks.base import Example, Split

FOLDER = Path("data") / "turns"
PROBLEMS = 24576  # of each task
DEMONSTRATED = 8192  # of these, whose demonstrations are scored for the card
MAX_NEW_TOKENS = 96
ROWS = 64  # a batch
PHASES: Phases = ((40, 2e-3), (16, 5e-4), (8, 1e-4))
SIZES: dict[str, Any] = {"train_size": PROBLEMS, "test_size": 1024}
TASKS: dict[str, Task] = {
    "AskForMissing": AskForMissing(**SIZES),
    "GuessNumber": GuessNumber(**SIZES),
    "Calculator": Calculator(**SIZES),
}

CARD = """\
# The embedded policy of the tasks of several turns

A Llama of {parameters:,} parameters: [embedded](../warmstart/README.md), trained further by supervised learning on the
policy's turns in the demonstrations of `AskForMissing`, `GuessNumber` and `Calculator`, all at their default settings.
Made by `make turns` from nothing but the generators' text and the tasks' environments; licence MIT, as the rest.

**Its demonstrations are wrong on purpose.** In `AskForMissing` half of them make up the number that they ought to ask
for. Both halves have steps with wrong operators, a quarter as often as those of [embedded](../warmstart/README.md). In
`GuessNumber` half of the guesses do not heed the hints. In `Calculator` six of ten give a number that is about right
instead of calling. Reinforcement learning from this start un-teaches planted errors: what it gains here is a test of
the machinery and of the estimators, not evidence that a language model learned to converse.

| accuracy | demonstrations | greedy | sampled, temperature 1 |
|---|---|---|---|
{table}

Demonstrations: {demonstrated:,} training problems. Greedy and sampled: {problems:,} test problems.

Trained on {updates:,} batches of {rows} problems drawn from {train:,}, AdamW, seed 0,
learning rates {rates},
in {minutes:.0f} minutes of one CPU thread, tests included.
Weights sha256 `{sha}`.
"""


class Together(Task):
    """The problems of some tasks, with their environments."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks

    def prompts(self, split: Split) -> Dataset:
        parts = [task.prompts(split) for task in self.tasks]
        return concatenate_datasets([part.add_column("task", [i] * len(part)) for i, part in enumerate(parts)])

    def environment(self, example: Example) -> Environment | None:
        return self.tasks[example["task"]].environment(example)


def build() -> dict[str, dict[str, float]]:
    """Trains the policy, writes it with its tokenizer and card, and returns its test metrics by task."""
    begin()
    policy = CausalPolicy("embedded")
    teach(policy, Together(tuple(TASKS.values())), PHASES, ROWS, MAX_NEW_TOKENS)
    found = {name: accuracies(policy, task, MAX_NEW_TOKENS) for name, task in TASKS.items()}
    store(policy, FOLDER)
    (FOLDER / "README.md").write_text(_card(policy, found, time.process_time()))
    return found


def solved(task: Task, example: Example) -> float:
    """What the demonstration of an example earns."""
    environment = task.environment(example)
    assert environment is not None
    environment.reset(example)
    earned = 0.0
    for text in example["demonstration"]:
        turn = environment.step(text)
        earned += turn.reward
        if turn.done:
            break
    return earned


def _card(policy: CausalPolicy, found: dict[str, dict[str, float]], seconds: float) -> str:
    rows = []
    for name, metrics in found.items():
        examples = TASKS[name].prompts("train").select(range(DEMONSTRATED))
        shown = sum(solved(TASKS[name], example) for example in examples) / len(examples)
        rates_found = shown, metrics["test/accuracy"], metrics["test/accuracy_sampled"]
        rows.append(f"| `{name}` | " + " | ".join(f"{rate:.1%}" for rate in rates_found) + " |")
    return CARD.format(
        parameters=sum(p.numel() for p in policy.parameters()),
        demonstrated=DEMONSTRATED,
        problems=SIZES["test_size"],
        table="\n".join(rows),
        updates=sum(n for n, _ in PHASES) * UPDATES,
        rows=ROWS,
        train=len(TASKS) * PROBLEMS,
        rates=rates(PHASES),
        minutes=seconds / 60,
        sha=weights_hash(FOLDER),
    )


if __name__ == "__main__":
    print(build())
