"""A generator of word problems in GSM8K's format, easy enough for a model of 0.3M parameters."""

import random
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from lit_rl.errors import UsageError
from lit_rl.ranges import Count, Seed, Share, Steps
from lit_rl.tasks.base import Split, split_of
from lit_rl.tasks.gsm8k import AnswerReader, WordProblems

NAMES = ("Ann", "Ben", "Carla", "Dan", "Eva", "Finn", "Gina", "Hugo", "Iris", "Jon", "Kira", "Leo")
ITEMS = ("pens", "apples", "cards", "coins", "shells", "books", "stamps", "marbles", "eggs", "keys")
STARTS, SUMMANDS, FACTORS = (5, 30), (2, 9), (2, 3)  # numbers of a problem: the least and the largest
LARGEST = 99  # a quantity of a correct solution
LARGEST_WRONG = 999  # a quantity of a demonstration with planted errors


@dataclass(frozen=True)
class Event:
    """A sentence of the problem, the operation it means, and how demonstrations get it wrong."""

    sentence: str
    operator: str
    wrong_operator: str
    error_rate: float


EVENTS = (
    Event("{name} buys {n} more.", "+", "-", 0.3),
    Event("{name} finds {n} more.", "+", "-", 0.5),
    Event("{name} gives away {n}.", "-", "+", 0.3),
    Event("{name} loses {n}.", "-", "+", 0.5),
    Event("Soon {name} has {n} times as many.", "*", "+", 0.3),
)


class GSM8KStyle(WordProblems):
    """Generated word problems: chains of operations on one quantity, in GSM8K's format.

    A response takes about 20 tokens per step (35 with 2 steps, 150 with 8). The splits are disjoint in the arithmetic
    itself: two problems that differ only in the name and the thing counted are in the same split. The column
    ``demonstration`` is a solution in which each step uses a wrong operator, with correct arithmetic, with the
    probability ``error_rate`` of the event times ``error_scale``. A warm start on it leaves an error for reinforcement
    learning to unlearn.

    Args:
        steps: operations of a problem, 2 to 8.
        most_steps: if given, problems have ``steps`` to this many operations, each number equally likely.
        error_scale: scales the rates of wrong operators in demonstrations, 0 to 1; 0 demonstrates correct solutions.
        train_size: problems of the training split.
        val_size: problems of the validation split.
        test_size: problems of the test split.
        seed: of the generator. The splits of two seeds are disjoint as well.
        answer: where the answer of a response is read: ``hash``, ``boxed``, ``last_number`` or ``math``. The embedded
            policies write ``####`` (``hash``).
    """

    def __init__(
        self,
        steps: Steps = 2,
        most_steps: Steps | None = None,
        error_scale: Share = 1.0,
        train_size: Count = 8192,
        val_size: Count = 256,
        test_size: Count = 512,
        seed: Seed = 0,
        answer: AnswerReader = "hash",
    ) -> None:
        super().__init__(answer)
        if most_steps is not None and most_steps < steps:
            raise UsageError(f"data.task.most_steps is {most_steps}; choose {steps} (data.task.steps) to 8")
        self.steps, self.most_steps, self.error_scale, self.seed = steps, most_steps, error_scale, seed
        self.sizes: dict[str, int] = {"train": train_size, "val": val_size, "test": test_size}
        self._splits: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._splits:
            several = f"-{self.most_steps}" if self.most_steps is not None else ""
            rng = random.Random(f"{self.seed} {self.steps}{several} {split}")
            rows: list[dict[str, Any]] = []
            while len(rows) < self.sizes[split]:
                steps = self.steps if self.most_steps is None else rng.randint(self.steps, self.most_steps)
                start, events = _draw(rng, steps)
                if _split(start, events) == split:
                    rows.append(_tell(rng, start, events, self.error_scale))
            self._splits[split] = Dataset.from_list(rows)
        return self._splits[split]


def _draw(rng: random.Random, steps: int) -> tuple[int, list[tuple[Event, int]]]:
    """A start value and (event, number) pairs whose correct values stay within 1..LARGEST."""
    start = value = rng.randint(*STARTS)
    events: list[tuple[Event, int]] = []
    while len(events) < steps:
        event = rng.choice(EVENTS)
        n = rng.randint(*(FACTORS if event.operator == "*" else SUMMANDS))
        result = _apply(event.operator, value, n)
        if 1 <= result <= LARGEST:
            events.append((event, n))
            value = result
    return start, events


def _split(start: int, events: list[tuple[Event, int]]) -> Split:
    """The split of a problem: a function of its arithmetic alone."""
    return split_of(f"{start} " + " ".join(event.sentence.format(name="", n=n) for event, n in events))


def _tell(rng: random.Random, start: int, events: list[tuple[Event, int]], error_scale: float) -> dict[str, Any]:
    name, items = rng.choice(NAMES), rng.choice(ITEMS)
    told = " ".join(event.sentence.format(name=name, n=n) for event, n in events)
    question = f"{name} has {start} {items}. {told} How many {items} does {name} have now?"
    operators = [event.operator for event, _ in events]
    planted = [e.wrong_operator if rng.random() < error_scale * e.error_rate else e.operator for e, _ in events]
    numbers = [n for _, n in events]
    return {
        "prompt": [{"role": "user", "content": question}],
        "question": question,
        "answer": solution(name, items, start, operators, numbers),
        "demonstration": solution(name, items, start, planted, numbers),
    }


def solution(name: str, items: str, value: int, operators: list[str], numbers: list[int]) -> str:
    """What is worked out step by step, each operator with its number."""
    lines = []
    for operator, n in zip(operators, numbers, strict=True):
        result = _apply(operator, value, n)
        if not 0 <= result <= LARGEST_WRONG:  # only ever after a planted error
            operator, result = "+", value + n
        sum_ = f"{value}{operator}{n}"
        lines.append(f"{name} has {sum_}=<<{sum_}={result}>>{result} {items}.")
        value = result
    return "\n".join([*lines, f"#### {value}"])


def _apply(operator: str, value: int, n: int) -> int:
    return {"+": value + n, "-": value - n, "*": value * n}[operator]
