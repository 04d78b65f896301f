"""GSM-Symbolic (2410.05229): GSM8K with other names and numbers, as reasoning-gym (2505.24760) makes it."""

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from datasets import Dataset

from lit_rl.errors import UsageError
from lit_rl.ranges import Count, Seed
from lit_rl.tasks.base import Split, split_of
from lit_rl.tasks.gsm8k import INSTRUCTIONS, AnswerReader, WordProblems

CHUNK = 1024  # problems made at a time
FORMAT = " Give the result as your final answer. Do not include units."  # reasoning-gym's; the instruction says it here


class GSMSymbolic(WordProblems):
    """GSM-Symbolic: templates of GSM8K's problems, filled with random names and numbers (2410.05229).

    It is scored as GSM8K is, 0 or 1. (The score of reasoning-gym itself takes a response's first number, and gives 0.01
    for a wrong one.) No question is in two splits, but all splits share the templates: the test is on other numbers,
    not on other problems. The column ``demonstration`` is the worked solution, which ends in ``#### n``.

    Args:
        train_size: problems of the training split, all different.
        val_size: problems of the validation split.
        test_size: problems of the test split.
        seed: of the generator. The splits of two seeds are disjoint as well.
        instruction: text before each question; null takes one that fits ``answer``.
        answer: where the answer of a response is read: ``hash``, ``boxed``, ``last_number`` or ``math``.

    Raises:
        UsageError: when prompts are asked for, reasoning-gym is not installed.
    """

    def __init__(
        self,
        train_size: Count = 8192,
        val_size: Count = 256,
        test_size: Count = 512,
        seed: Seed = 0,
        instruction: str | None = None,
        answer: AnswerReader = "hash",
    ) -> None:
        super().__init__(answer)
        self.seed, self.instruction = seed, INSTRUCTIONS[answer] if instruction is None else instruction
        self.sizes: dict[str, int] = {"train": train_size, "val": val_size, "test": test_size}
        self._splits: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._splits:
            rows: dict[str, dict[str, Any]] = {}
            for question, answer in _problems(f"{self.seed} {split}"):
                if split_of(question) == split:
                    prompt = [{"role": "user", "content": self.instruction + question}]
                    rows[question] = {"prompt": prompt, "question": question, "answer": answer, "demonstration": answer}
                if len(rows) == self.sizes[split]:
                    break
            self._splits[split] = Dataset.from_list(list(rows.values()))
        return self._splits[split]


def _problems(seed: str) -> Iterator[tuple[str, str]]:
    """Questions, and solutions that end in ``#### n``, without end."""
    try:
        import reasoning_gym  # takes seconds
    except ImportError:
        raise UsageError("data.task GSMSymbolic takes reasoning-gym; pip install 'lit-rl[symbolic]'") from None
    for chunk in count():
        # seeds far apart: reasoning-gym draws the i-th problem from seed + i
        chunk_seed = random.Random(f"{seed} {chunk}").getrandbits(63)
        for item in reasoning_gym.create_dataset("gsm_symbolic", seed=chunk_seed, size=CHUNK):
            yield item["question"].removesuffix(FORMAT), item["metadata"]["answer_cot"]
