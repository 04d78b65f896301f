"""The process behind math_answers: reads a text and a truth a line, writes whether one was read and is right.

A script of its own, so that it imports math-verify alone. It ends with its standard input.
"""

import json
import os
import sys


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not be taken for a reply
    from math_verify import parse, verify

    os.write(replies, b"\n")  # ready
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = parse(question["text"])
            read, right = bool(answer), bool(answer) and verify(parse(question["truth"]), answer)
        except Exception:  # whatever the parsers of LaTeX raise
            read, right = False, False
        os.write(replies, json.dumps([read, bool(right)]).encode() + b"\n")


if __name__ == "__main__":
    main()
