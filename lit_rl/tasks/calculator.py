"""Arithmetic with a tool: the policy may have expressions evaluated before it answers."""

import ast
import re
from collections.abc import Callable, Sequence
from operator import add, mul, neg, sub
from typing import Any

import torch

from lit_rl.ranges import Count
from lit_rl.tasks.arithmetic import INSTRUCTIONS, Arithmetic
from lit_rl.tasks.base import Example
from lit_rl.tasks.environment import Environment, Message, Turn
from lit_rl.tasks.gsm8k import AnswerReader

CALL = re.compile(r"^[ \t]*calc:(.*)$", re.MULTILINE)
OFFER = "To have an expression evaluated, write only 'calc: ' and the expression, such as calc: 3 * (4 - 1)."
LONGEST = 100  # characters of an expression
OPERATORS: dict[type, Callable[..., int]] = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.USub: neg, ast.UAdd: int}


class Tool(Environment):
    """Evaluates what a turn asks for; a turn without a call is the answer.

    Args:
        judge: the score of an answer.
        calls: that are answered; a turn with a further one is taken for the answer.
    """

    def __init__(self, judge: Callable[[Example, str], float], calls: int) -> None:
        self.judge, self.calls = judge, calls
        self.example: Example = {}

    def reset(self, example: Example) -> Sequence[Message]:
        self.example = example
        return example["prompt"]

    def step(self, text: str) -> Turn:
        asked = CALL.findall(text)
        if not asked or not self.calls:
            return Turn(reward=self.judge(self.example, text), done=True)
        self.calls -= 1
        value = evaluate(asked[-1])
        said = "whole numbers, + - * and brackets only" if value is None else f"= {value}"
        return Turn([{"role": "user", "content": said}])

    def state(self) -> int:
        return self.calls

    def restore(self, state: int) -> None:
        self.calls = state


class Calculator(Arithmetic):
    r""":class:`Arithmetic` with a calculator that the policy may call.

    A turn with a line ``calc: 14 - 2 * 9`` is a call; the environment says ``= -4``. The first turn without a call is
    the answer, and its score the reward.

    Args:
        calls: calls that are answered in a response.
        instruction: text behind each question; null takes one that offers the calculator and fits ``answer``.
        answer: where the answer of the last turn is read: ``last_number``, ``hash``, ``boxed`` or ``math``.
    """

    def __init__(
        self,
        calls: Count = 4,
        instruction: str | None = None,
        answer: AnswerReader = "last_number",
        **kwargs: Any,
    ) -> None:
        said = f"{OFFER} In the end: {INSTRUCTIONS[answer]}" if instruction is None else instruction
        super().__init__(instruction=said, answer=answer, **kwargs)
        self.calls = calls

    def environment(self, example: Example) -> Tool:
        return Tool(lambda example, text: self.score(example, torch.zeros(0, dtype=torch.long), text), self.calls)


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
