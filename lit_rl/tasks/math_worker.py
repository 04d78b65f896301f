"""The process behind math_answers: reads a text, a truth and seconds a line, writes whether one was read and is right.

A script of its own, so that it imports math-verify alone. It ends with its standard input, or when the seconds of a
question are over: by the alarm itself, which no computation can hold up.
"""

import contextlib
import json
import os
import resource
import signal
import sys

MEMORY = 4 << 30  # bytes, of which an answer like 9^{9^{9^9}} would take any number


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not be taken for a reply
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the run finishes its iteration first
        signal.signal(signum, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):  # of systems without this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from math_verify import parse, verify

    os.write(replies, b"\n")  # ready
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, question["seconds"])
        try:
            answer = parse(question["text"], parsing_timeout=None)
            truth = parse(question["truth"], parsing_timeout=None)
            read = bool(answer)
            right = read and bool(verify(truth, answer, timeout_seconds=None))
        except Exception:  # whatever the parsers of LaTeX raise
            read, right = False, False
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, json.dumps([read, right]).encode() + b"\n")


if __name__ == "__main__":
    main()
