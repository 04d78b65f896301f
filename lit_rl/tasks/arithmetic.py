"""Sums, differences and products of a few whole numbers, asked in words."""

import random
from collections.abc import Sequence
from math import prod
from typing import Any

from datasets import Dataset

from lit_rl.errors import UsageError
from lit_rl.ranges import Count, Operand, Seed, Terms
from lit_rl.tasks.base import Split, split_of
from lit_rl.tasks.gsm8k import AnswerReader, WordProblems

OPERATORS = "+-*"
FORMS = {"hash": "#### {}", "boxed": "\\boxed{{{}}}", "last_number": "{}", "math": "\\boxed{{{}}}"}  # of a whole answer
INSTRUCTIONS = {
    "hash": "Give only '#### ' and the final number.",
    "boxed": "Give only the final number in \\boxed{}.",
    "last_number": "Give only the final number.",
    "math": "Give only the final number in \\boxed{}.",
}
TRIES = 1000  # for a problem of a split; about one in ten is of val, and one in ten of test


class Arithmetic(WordProblems):
    r"""Sums, differences and products of a few numbers, asked in words.

    A prompt is "What is 14 - 2 - 9? Give only the final number." How many numbers it has, each of them and each
    operator are drawn independently, all choices equally likely. Multiplication comes before addition and subtraction.

    The splits are disjoint in the arithmetic itself: problems that differ only in the order of summands or factors are
    in the same split. Within a split a problem may come again, one of few numbers most often. The column
    ``demonstration`` is the right number alone, in the form that ``answer`` reads.

    Args:
        terms: how many numbers a problem has, 2 to 10: one or more choices, such as 2 and 3.
        largest: numbers are 1 to this; the result may be larger, or negative.
        operators: those that occur, of ``+``, ``-`` and ``*``, in one text: ``+-``.
        train_size: problems of the training split.
        val_size: problems of the validation split.
        test_size: problems of the test split.
        seed: of the generator. The splits of two seeds are disjoint as well.
        instruction: text behind each question; null takes one that fits ``answer``.
        answer: where the answer of a response is read: ``last_number``, ``hash``, ``boxed`` or ``math``.

    Raises:
        UsageError: no choice of ``terms``, other ``operators``, or fewer different problems than the three sizes
            together.
    """

    def __init__(
        self,
        terms: Sequence[Terms] = (2, 3),
        largest: Operand = 20,
        operators: str = "+-",
        train_size: Count = 8192,
        val_size: Count = 256,
        test_size: Count = 512,
        seed: Seed = 0,
        instruction: str | None = None,
        answer: AnswerReader = "last_number",
    ) -> None:
        super().__init__(answer)
        if not terms:
            raise UsageError("data.task.terms is empty; give at least one number of terms, such as [2, 3]")
        if not operators or not set(operators) <= set(OPERATORS) or len(set(operators)) < len(operators):
            raise UsageError(f"data.task.operators is '{operators}'; choose from + - *, each once at most")
        self.terms, self.largest, self.operators, self.seed = sorted(set(terms)), largest, operators, seed
        self.instruction = INSTRUCTIONS[answer] if instruction is None else instruction
        self.sizes: dict[str, int] = {"train": train_size, "val": val_size, "test": test_size}
        different, asked = sum(largest**n * len(operators) ** (n - 1) for n in self.terms), sum(self.sizes.values())
        if different < asked:
            raise UsageError(
                f"data.task.largest is {largest}: of {self.terms} numbers with operators {operators} there are "
                f"{different} different problems, fewer than train_size, val_size and test_size together ({asked}); "
                "raise largest or lower the sizes"
            )
        self._splits: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._splits:
            rng = random.Random(f"{self.seed} {self.terms} {self.largest} {self.operators} {split}")
            self._splits[split] = Dataset.from_list([self._row(rng, split) for _ in range(self.sizes[split])])
        return self._splits[split]

    def _row(self, rng: random.Random, split: Split) -> dict[str, Any]:
        terms = rng.choice(self.terms)
        for _ in range(TRIES):
            numbers = [rng.randint(1, self.largest) for _ in range(terms)]
            operators = rng.choices(self.operators, k=terms - 1)
            summands = _summands(numbers, operators)
            if split_of(str(sorted(map(sorted, summands)))) == split:
                break
        else:
            few = f"data.task.largest is {self.largest}: no problem of {terms} numbers is in the split '{split}'"
            raise UsageError(f"{few}; raise it")
        behind = (f" {operator} {n}" for operator, n in zip(operators, numbers[1:], strict=True))
        question, value = f"What is {numbers[0]}{''.join(behind)}?", sum(map(prod, summands))
        return {
            "prompt": [{"role": "user", "content": f"{question} {self.instruction}".rstrip()}],
            "question": question,
            "answer": f"#### {value}",
            "demonstration": FORMS[self.answer].format(value),
        }


def _summands(numbers: list[int], operators: list[str]) -> list[list[int]]:
    """The factors of each summand; -1 is one of a summand that is subtracted."""
    summands = [[numbers[0]]]
    for operator, n in zip(operators, numbers[1:], strict=True):
        if operator == "*":
            summands[-1].append(n)
        else:
            summands.append([n] if operator == "+" else [-1, n])
    return summands
