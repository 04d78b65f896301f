"""Answers that are expressions, read and compared by math-verify, in a process of its own that can be stopped.

math-verify limits its own time by SIGALRM, which works on a process's main thread only, and not inside of C code.
"""

from functools import lru_cache
from importlib.util import find_spec

from lit_rl.errors import UsageError
from lit_rl.tasks.worker import Worker

SECONDS = 5.0  # for one response
VERIFIER = Worker("math", "data.task.answer is math, and math-verify does not start; pip install 'lit-rl[math]'")


def check_installed() -> None:
    """Raises UsageError without math-verify."""
    if find_spec("math_verify") is None:
        raise UsageError("data.task.answer is math, which takes math-verify; pip install 'lit-rl[math]'")


@lru_cache(maxsize=4096)  # a response is scored, and asked for whether it could be read
def judge(text: str, truth: str) -> tuple[bool, bool]:
    """Whether math-verify reads an answer in a text, and whether it equals the truth.

    Neither, where that takes longer than SECONDS.
    """
    read, right = VERIFIER.ask({"text": text, "truth": truth}, SECONDS) or (False, False)
    return read, right
