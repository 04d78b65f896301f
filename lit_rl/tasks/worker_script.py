"""The process behind worker.py: reads a question a line, writes a reply a line. Its argument names its judge.

A script of its own, so that the process imports nothing but the library of its judge. It ends with its standard
input, or when the seconds of a question are over: by the alarm itself, which no computation can hold up.
"""

import base64
import contextlib
import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

MEMORY = 4 << 30  # bytes, of which an answer like 9^{9^{9^9}} would take any number

Reply = Callable[[dict[str, Any]], Any]


def math() -> Reply:
    """``text`` and ``truth``: whether math-verify reads an answer in the text, and whether it equals the truth."""
    from math_verify import parse, verify

    def reply(question: dict[str, Any]) -> tuple[bool, bool]:
        answer = parse(question["text"], parsing_timeout=None)
        truth = parse(question["truth"], parsing_timeout=None)
        return bool(answer), bool(answer and verify(truth, answer, timeout_seconds=None))

    return reply


def reasoning_gym() -> Reply:
    """``entry``, the pickled name, configuration and item of a data set, and ``answer``: the data set's score of it."""
    from reasoning_gym import create_dataset

    @lru_cache(maxsize=128)
    def made(pickled: bytes) -> Any:
        name, config = pickle.loads(pickled)
        return create_dataset(name, **config, seed=0, size=1)

    def reply(question: dict[str, Any]) -> float:
        name, config, item = pickle.loads(base64.b64decode(question["entry"]))
        return float(made(pickle.dumps((name, config))).score_answer(question["answer"], item))

    return reply


def main() -> None:
    del sys.path[0]  # this folder, whose modules may be called as others are
    questions, replies = os.fdopen(os.dup(0)), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # an answer that is evaluated must not take a question for input
    os.dup2(2, 1)  # what libraries print must not be taken for a reply
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the run finishes its iteration first
        signal.signal(signum, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):  # of systems without this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    reply = {"math": math, "reasoning_gym": reasoning_gym}[sys.argv[1]]()
    os.write(replies, b"\n")  # ready
    for line in questions:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, question["seconds"])
        try:
            found = reply(question)
        except BaseException:  # whatever parsers raise, and an answer that is evaluated: exit() raises SystemExit
            found = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
