"""Answers: those that docs/answers.md lists, generated ones, and texts that are made to be slow."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path

import torch
from answer_forms import fuzzed, generated, listed
from trials import Trial

from lit_rl.tasks import GSM8KStyle, math_answers
from lit_rl.tasks.answers import READERS, boxed_answer, hash_answer

CHUNK = 10_000
SLOWEST = 0.05  # seconds for one answer
MILLION = 10**6


def seconds(reader: Callable[[str], Decimal | None], text: str) -> tuple[Decimal | None, float]:
    started = time.thread_time()
    return reader(text), time.thread_time() - started


def right(seed: int, box: bool, folder: Path) -> None:
    """No false positive, at most 1 % not read, none slow, of CHUNK generated answers."""
    wrong, missed, readable, slowest = [], 0, 0, 0.0
    for text, form, number in generated(CHUNK, seed):
        if box and "\\boxed" in form:
            continue  # the last box is the inner one, and what stands around it is outside
        reader, text = (boxed_answer, f"{text} \\boxed{{{form}}}.") if box else (hash_answer, text)
        found, took = seconds(reader, text)
        slowest = max(slowest, took)
        readable += number is not None
        if found is None:
            missed += number is not None
        elif found != number:
            wrong.append((form, number, found))
    assert not wrong, f"{len(wrong)} read wrongly: {wrong[:3]}"
    assert missed <= 0.01 * readable, f"{missed} of {readable} not read"
    assert slowest < SLOWEST, f"{1000 * slowest:.0f} ms"


def whole(seed: int, folder: Path) -> None:
    """Every digit of a line that is read is one of the number's."""
    for line in fuzzed(CHUNK, seed):
        found = hash_answer("####" + line)
        digits = re.sub("[^0-9.]", "", line).removesuffix(".")
        assert found is None or Decimal(digits) == abs(found), (line, found)


def page(form: str, number: Decimal | None, folder: Path) -> None:
    assert hash_answer(f"#### {form}") == number and boxed_answer(f"\\boxed{{{form}}}") == number


def adversarial() -> Iterator[str]:
    """Texts of a megabyte, of pieces that a reader's patterns begin with, and whole lines of the longest kind."""
    pieces = [
        "#",
        "####",
        "#### ",
        "#### 5\n",
        "\\boxed{",
        "{",
        "}",
        "1",
        "1,",
        "1,234",
        "1 ",
        "-",
        "- ",
        "−",
        "$",
        "$$",
        "**",
        "*",
    ]
    pieces += [
        "a",
        "a ",
        "a/",
        "x=",
        "is ",
        " ",
        "\n",
        "\\",
        "\\text{",
        "(",
        ")",
        ".",
        "0.",
        "5e",
        "٥",
        "\u00a0",
        "\\boxed{5} ",
    ]
    for piece in pieces:
        many = piece * (MILLION // len(piece))
        yield from (
            many,
            "#### " + many,
            many + "#### 5",
            "\\boxed{" + many,
            many + "}",
            "5" + many + "#### 1 \\boxed{2}",
        )
        line = piece * (190 // len(piece))
        yield from (f"#### {line}5", f"#### 5{line}", f"#### {line}5{line}", f"\\boxed{{{line[:90]}5{line[:90]}}}")
    for opening, closing in ("()", "[]", "**", "__", "$$", "''", ("x=", "."), ("\\text{", "}"), ("\\boxed{", "}")):
        deep = 190 // len(opening + closing)
        yield from (f"#### {opening * deep}5{closing * deep}", f"#### {opening * deep}{closing * deep}")


def fast(name: str, folder: Path) -> None:
    for text in adversarial():
        took = min(seconds(READERS[name], text)[1] for _ in range(2))  # a busy machine may disturb one
        assert took < SLOWEST, f"{text[:20]!r}: {1000 * took:.0f} ms"


def stopped(text: str, folder: Path) -> None:
    with ThreadPoolExecutor(1) as off_the_main_thread:
        off_the_main_thread.submit(_stopped, text).result()


def _stopped(text: str) -> None:
    """math-verify's worker has a second and a half; the next answer is read by another one."""
    example, before = {"answer": "#### 4"}, math_answers.SECONDS
    math_answers.SECONDS = 1.5
    try:
        task = GSM8KStyle(answer="math")
        task.score(example, torch.zeros(0), "\\boxed{4}")  # starts it
        started = time.perf_counter()
        task.score(example, torch.zeros(0), text)
        assert time.perf_counter() - started < 10
        math_answers.SECONDS = 30.0
        assert task.score(example, torch.zeros(0), f"so \\boxed{{\\frac{{8}}{{2}}}} {len(text)}") == 1
    finally:
        math_answers.SECONDS = before


RIGHT = "Of 10,000 generated answers none is read wrongly or takes 50 ms, and at most 1 % in a listed form is not read"
WHOLE = "No digit of a line is left out of the number that is read from it (10,000 lines a trial)"
PAGE = "Each form in the tables of docs/answers.md is read as the table says"
FAST = "No text of a megabyte takes a reader 50 ms (368 texts a trial)"
STOPPED = "No response holds up math-verify's reader, off the main thread too"
BOMBS = [
    "\\boxed{9^{9^{9^{9^{9}}}}}",
    "\\boxed{" * 20_000,
    "\\boxed{10^{10^{10}}!}",
    "\\boxed{\\sum_{n=1}^{10^{12}} \\frac{1}{n}}",
]
BOMBS += ["\\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}", "1," * 200_000, "\\boxed{\\int e^{x^x} \\sin(x^x) dx}"]
READ, UNREAD = listed("What `hash` and `boxed` read"), listed("What `hash` and `boxed` do not read")
TRIALS = [
    *(
        Trial(RIGHT, f"{'boxed' if box else 'hash'} {seed}", partial(right, seed, box))
        for seed in range(5)
        for box in (0, 1)
    ),
    *(Trial(WHOLE, str(seed), partial(whole, seed)) for seed in range(5)),
    *(Trial(PAGE, form, partial(page, form, number)) for form, number in [*READ, *UNREAD]),
    *(Trial(FAST, name, partial(fast, name)) for name in READERS),
    *(Trial(STOPPED, text[:30], partial(stopped, text)) for text in BOMBS),
]
