"""Word problems in which the policy may ask before it answers: a calculator, or the person who told the problem."""

import ast
import random
import re
from collections.abc import Callable, Sequence
from operator import add, mul, neg, sub
from typing import Any

import torch
from datasets import Dataset

from lit_rl.ranges import Count, Share, Steps
from lit_rl.tasks.arithmetic import FORMS, INSTRUCTIONS, Arithmetic
from lit_rl.tasks.base import Example, Split
from lit_rl.tasks.environment import Environment, Message, Turn
from lit_rl.tasks.gsm8k import AnswerReader, WordProblems
from lit_rl.tasks.gsm8k_style import FACTORS, STARTS, SUMMANDS, GSM8KStyle, solution

CALL = re.compile(r"^[ \t]*calc:(.*)$", re.MULTILINE)
OFFER = "To have an expression evaluated, write only 'calc: ' and the expression, such as calc: 3 * (4 - 1)."
LONGEST = 100  # characters of an expression
FURTHEST = 5  # that a demonstration which does not call is off
STEP = re.compile(r"^(\w+) has (\d+)([-+*])(\d+)=<<.*>>\d+ (\w+)\.$", re.MULTILINE)  # of a demonstration
OPERATORS: dict[type, Callable[..., int]] = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.USub: neg, ast.UAdd: int}


class Replies(Environment):
    """Replies to turns that ask; the first turn that doesn't is the answer, and is scored.

    Args:
        task: that scores the answer.
        reply: to a turn, from the example and the text; None for one that doesn't ask.
        left: turns that are replied to; a further one is taken for the answer.
    """

    def __init__(self, task: WordProblems, reply: Callable[[Example, str], str | None], left: int) -> None:
        self.task, self.reply, self.left = task, reply, left
        self.example: Example = {}

    def reset(self, example: Example) -> Sequence[Message]:
        self.example = example
        return example["prompt"]

    def step(self, text: str) -> Turn:
        said = self.reply(self.example, text) if self.left else None
        if said is None:
            return Turn(reward=self.task.score(self.example, torch.zeros(0, dtype=torch.long), text), done=True)
        self.left -= 1
        return Turn([{"role": "user", "content": said}])

    def state(self) -> int:
        return self.left

    def restore(self, state: int) -> None:
        self.left = state


class Calculator(Arithmetic):
    r""":class:`Arithmetic` with a calculator that the policy may call.

    A turn with a line ``calc: 14 - 2 * 9`` is a call; the environment says ``= -4``. The first turn without a call is
    the answer, and its score the reward. A demonstration calls with the whole expression, or gives a number that is
    about right at once.

    Args:
        calls: calls that are answered in a response.
        call_rate: share of the demonstrations that call.
        instruction: text behind each question; null takes one that offers the calculator and fits ``answer``.
        answer: where the answer of the last turn is read: ``last_number``, ``hash``, ``boxed`` or ``math``.
    """

    def __init__(
        self,
        calls: Count = 4,
        call_rate: Share = 0.4,
        instruction: str | None = None,
        answer: AnswerReader = "last_number",
        **kwargs: Any,
    ) -> None:
        said = f"{OFFER} In the end: {INSTRUCTIONS[answer]}" if instruction is None else instruction
        super().__init__(instruction=said, answer=answer, **kwargs)
        self.calls, self.call_rate = calls, call_rate
        self._shown: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._shown:
            rng = random.Random(f"{self.seed} calls {split}")
            self._shown[split] = Dataset.from_list([self._demonstrated(rng, row) for row in super().prompts(split)])
        return self._shown[split]

    def _demonstrated(self, rng: random.Random, row: Example) -> Example:
        expression = row["question"].removeprefix("What is ").removesuffix("?")
        if rng.random() < self.call_rate:
            return {**row, "demonstration": [f"calc: {expression}", row["demonstration"]]}
        value = evaluate(expression)
        assert value is not None
        return {**row, "demonstration": [FORMS[self.answer].format(value + rng.randint(-FURTHEST, FURTHEST))]}

    def environment(self, example: Example) -> Replies:
        return Replies(self, _evaluated, self.calls)


class AskForMissing(GSM8KStyle):
    """:class:`GSM8KStyle` with one quantity left out of each problem, which the policy has to ask for.

    "Ann has some pens. Ann buys 3 more. How many pens does Ann have now?" A turn with a question mark asks, and is told
    the sentence with its quantity: "Ann has 12 pens." The first turn without one is the answer, and its score the
    reward. A demonstration asks and then solves the problem, or solves it at once with a number that it makes up; in
    both cases with errors as :class:`GSM8KStyle` plants them.

    Args:
        steps: operations of a problem, 2 to 8.
        questions: questions that are answered in a response.
        ask_rate: share of the demonstrations that ask.
        error_scale: scales the rates of wrong operators in demonstrations, 0 to 1; 0 demonstrates correct operators.
    """

    def __init__(
        self,
        steps: Steps = 2,
        questions: Count = 1,
        ask_rate: Share = 0.5,
        error_scale: Share = 0.25,
        **kwargs: Any,
    ) -> None:
        super().__init__(steps, error_scale=error_scale, **kwargs)
        self.questions, self.ask_rate = questions, ask_rate
        self._incomplete: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._incomplete:
            gaps, asks = (random.Random(f"{self.seed} {self.steps} {what} {split}") for what in ("missing", "asked"))
            rows = [_incomplete(gaps, asks, row, self.ask_rate) for row in super().prompts(split)]
            self._incomplete[split] = Dataset.from_list(rows)
        return self._incomplete[split]

    def environment(self, example: Example) -> Replies:
        return Replies(self, _told, self.questions)


def evaluate(text: str) -> int | None:
    """The value of an expression of whole numbers with + - * and brackets; None if it is none, or too long."""
    if len(text) > LONGEST:
        return None
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, KeyError, RecursionError, MemoryError):
        return None


def _value(node: Any) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("no arithmetic")


def _evaluated(example: Example, text: str) -> str | None:
    asked = CALL.findall(text)
    value = evaluate(asked[-1]) if asked else None
    return None if not asked else "whole numbers, + - * and brackets only" if value is None else f"= {value}"


def _told(example: Example, text: str) -> str | None:
    return example["missing"] if "?" in text else None


def _incomplete(gaps: random.Random, asks: random.Random, row: Example, ask_rate: float) -> Example:
    """The problem without the number of one of its sentences, which is kept as ``missing``."""
    *told, question = re.split(r"(?<=\.) ", row["question"])
    at = gaps.randrange(len(told))
    missing = told[at]
    told[at] = re.sub(r"\d+", "several" if "times" in missing else "some", missing)
    text = " ".join([*told, question])
    asked = asks.random() < ask_rate
    solved = row["demonstration"]
    if asked:
        turns = [f"{told[at][:-1]}: how many?", solved]
    else:
        turns = [_made_up(asks, solved, at, STARTS if at == 0 else FACTORS if "times" in missing else SUMMANDS)]
    prompt = [{"role": "user", "content": text}]
    return {"prompt": prompt, "question": text, "answer": row["answer"], "missing": missing, "demonstration": turns}


def _made_up(rng: random.Random, solved: str, at: int, limits: tuple[int, int]) -> str:
    """A solution anew, with a number within limits in the place of the one of sentence ``at``."""
    steps = STEP.findall(solved)
    name, start, _, _, items = steps[0]
    operators = [operator for _, _, operator, _, _ in steps]
    numbers = [int(start), *(int(n) for _, _, _, n, _ in steps)]
    numbers[at] = rng.randint(*limits)
    return solution(name, items, numbers[0], operators, numbers[1:])
