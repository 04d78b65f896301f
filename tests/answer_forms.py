"""Answers whose number is known: those of docs/answers.md, and generated ones, labelled as they are made."""

import random
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "answers.md"
WORDS = "so we add the rest of them then each day she has left in all which makes for a total"
LABELS = ["x = ", "x=", "Answer: ", "**Answer:** ", "**Total**: ", "The answer is ", "Total cost = ", "Result: x = "]
UNITS = [
    "%",
    " %",
    "\\%",
    " apples",
    "kg",
    " km",
    " km/h",
    " miles per hour",
    " square feet",
    "\\text{ dollars}",
    " m²",
]
UNITS += ["°C", " dollars", " percent", " eggs left", "\\text{cm}", " hours per week", " pages/day"]
MARKS = [
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("`", "`"),
    ("(", ")"),
    ("[", "]"),
    ('"', '"'),
    ("$", "$"),
    ("$$", "$$"),
]
MARKS += [(r"\(", r"\)"), (r"\boxed{", "}"), (r"$\boxed{", "}$"), (r"\text{", "}"), (r"\mathbf{", "}")]
# what makes another number of an answer, or leaves open which it is: before it and behind it
SPOILERS = [
    ("", tail) for tail in ("/4", " / 3", "e5", "E12", "^2", "**2", "!", "x", "k", " k", "M", " m", "th", "-8", " - 8")
]
SPOILERS += [
    ("", tail) for tail in (" million", " Thousand", " dozen", "bn", " hundredths", " halves", " squared", " or more")
]
SPOILERS += [
    ("", tail)
    for tail in (" or 6", " to 8", ", 6", ",7,9", ":30", " 6", ";", "?", " and a half", " or six", " fives", "_000")
]
SPOILERS += [
    ("", tail) for tail in ("+3", " = 5", " * 2", " minus two", " is wrong", " 1/2", "\\frac{1}{2}", " \\times 10^3")
]
SPOILERS += [
    (head, "")
    for head in ("~", "≈", "<", ">= ", "about ", "not ", "3 + ", "3*", "- ", "--", "2x = ", "5/", "1e", "x != ")
]
SPOILERS += [
    (head, "")
    for head in ("x is not ", "at least ", "half of it is ", "x + y = ", "two or ", "\\frac{1}{2} ", "**", "(")
]


def listed(heading: str) -> list[tuple[str, Decimal | None]]:
    """The forms of the page's table below a heading that starts so, each with its number."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}")[2].partition("\n## ")[0]
    found: list[tuple[str, Decimal | None]] = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and "`" in line:
            number = Decimal(cells[2]) if len(cells) > 2 else None
            found += [(wide or form, number) for wide, form in re.findall(r"`` (.+?) ``|`(.+?)`", cells[1])]
    return found


def generated(count: int, seed: int) -> Iterator[tuple[str, str, Decimal | None]]:
    """``count`` responses that end in ``####``: the text, the line behind the mark and its number, None if spoiled."""
    rng = random.Random(seed)
    for _ in range(count):
        digits, number = _digits(rng)
        sign = rng.choice(["", "", "", "-", "−", "+"])
        currency = rng.choice(["", "", "", "$", "€", "£", "US$", "\\$"])
        form = rng.choice([sign + currency, currency + sign]) + digits
        number = -number if sign in ("-", "−") else number
        for _ in range(rng.choice([0, 0, 1, 2])):
            opening, closing = rng.choice(MARKS)
            form = opening + form + closing
        if rng.random() < 0.3:
            head, tail = rng.choice(SPOILERS)
            form, value = head + form + tail, None
        else:
            value = number
            form = form + (rng.choice(UNITS) if rng.random() < 0.4 else "")
            form = rng.choice(LABELS) + form if rng.random() < 0.3 else form
            form = form + rng.choice(["", "", "."])
        before = "\n".join(_noise(rng) for _ in range(rng.randrange(4)))
        behind = "".join(f"\n{_noise(rng)}" for _ in range(rng.randrange(3)))
        earlier = rng.choice(["", "", "#### 17\n", "#### unknown\n"])
        yield f"{before}\n{earlier}####{rng.choice([' ', '', '  '])}{form}{behind}", form, value


def fuzzed(count: int, seed: int) -> Iterator[str]:
    """``count`` lines of up to seven pieces of answers in any order."""
    rng = random.Random(seed)
    pieces = [
        "5",
        "12",
        "000",
        "1",
        "7.5",
        ",",
        ".",
        " ",
        " ",
        "-",
        "−",
        "+",
        "$",
        "€",
        "%",
        "(",
        ")",
        "**",
        "*",
        "$$",
        "=",
        ":",
    ]
    pieces += [
        "x",
        "Answer",
        " is ",
        " apples",
        " million",
        " or ",
        "e",
        "k",
        "/",
        "^",
        "\\boxed{",
        "}",
        "\\text{",
        "\\",
        "°",
        "²",
    ]
    for _ in range(count):
        yield "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 8)))


def _digits(rng: random.Random) -> tuple[str, Decimal]:
    """A number that isn't negative, and one way to write it."""
    whole = rng.randrange(10 ** rng.randrange(1, 10))
    text = f"{whole:,}".replace(",", rng.choice(["", "", ",", ",", " ", "\u00a0", "\u202f", "'", "{,}", r"\,"]))
    fraction = rng.choice(["", "", "", "0", "00", "5", "25", "125", str(rng.randrange(1000))])
    return text + (f".{fraction}" if fraction else ""), Decimal(f"{whole}.{fraction or 0}")


def _noise(rng: random.Random) -> str:
    words = [
        rng.choice([*WORDS.split(), f"{rng.randrange(999)}", f"{rng.randrange(99)}+{rng.randrange(99)}"])
        for _ in range(9)
    ]
    return " ".join(words) + rng.choice([".", ":", "", " = 12", " $5 or so"])
