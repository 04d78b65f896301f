"""Readers of answers: the one number that a response gives, exactly, or None. docs/answers.md shows what they read.

None of them takes longer than the text is long: only :data:`LONGEST` characters are looked at closely.
"""

import re
from collections.abc import Callable
from decimal import Decimal

LONGEST = 200  # characters of an answer, with everything around the number

Reader = Callable[[str], Decimal | None]


def hash_answer(text: str) -> Decimal | None:
    """The number that stands alone between the last ``####`` and the end of its line."""
    _, mark, behind = text.rpartition("####")
    lines = behind[: LONGEST + 1].splitlines()
    return lone_number(lines[0]) if mark and lines else None


def boxed_answer(text: str) -> Decimal | None:
    r"""The number that stands alone in the last ``\boxed{}``."""
    _, mark, behind = text.rpartition(r"\boxed{")
    depth = 1
    for end, character in enumerate(behind[: LONGEST + 1] if mark else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if not depth:
            return lone_number(behind[:end])
    return None


def last_number(text: str) -> Decimal | None:
    """The text's last number, wherever it stands."""
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    start = max(0, end - LONGEST)
    found = list(_ANYWHERE.finditer(text, start, end))
    if not found or (start and found[-1].start() == start):  # a part of a longer one
        return None
    return _decimal(found[-1][0])


READERS: dict[str, Reader] = {"hash": hash_answer, "boxed": boxed_answer, "last_number": last_number}


def lone_number(text: str) -> Decimal | None:
    """The number of a text that has nothing else but a label, a currency, marks around it and a unit.

    Anything that would make it another number, or leaves open which it is, gives None.
    """
    if len(text) > LONGEST:
        return None
    for spelling, plain in _SPELLINGS:
        text = spelling.sub(plain, text)
    text = text.strip().removesuffix(".")
    while not (number := _NUMBER.fullmatch(text := text.strip())):
        shorter = _without_label(text) or _without_marks(text) or _without_unit(text)
        if shorter is None:
            return None
        text = shorter
    return _decimal(number[0])


_SPACES = " \u00a0\u2009\u202f"  # those that group digits
_GROUPED = "|".join(rf"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+" for mark in (",", f"[{_SPACES}]", "'"))
_CURRENCY = r"(?:(?:US|CA|AU)?\$|[€£¥₹₩])"
_NUMBER = re.compile(
    rf"(?:[-+]?(?:{_CURRENCY}[{_SPACES}]?)?|{_CURRENCY}[{_SPACES}]?[-+])(?:(?:{_GROUPED}|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
)
_ANYWHERE = re.compile(
    rf"(?:(?<![\w)\]}}])[-\u2212])?{_CURRENCY}?"
    r"(?:(?:(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
_SPELLINGS = [
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf)\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[, ]"), " "),
    (re.compile("\u2212"), "-"),
]
_MARKS = [("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"), ("$$", "$$"), ("$", "$")]
_MARKS += [(r"\(", r"\)"), (r"\[", r"\]"), ("(", ")"), ("[", "]"), ('"', '"'), ("'", "'"), ("“", "”")]
_MARKS += [(rf"\{name}{{", "}") for name in ("boxed", "text", "textbf", "textit", "mathrm", "mathbf")]
_LABEL = re.compile(r"(\*\*|__|)([A-Za-z][A-Za-z ']*)(?:\1[:=]|[:=]\1|(?<= is)\1 )")
_UNIT = re.compile(r"(.*[^A-Za-z\s/])\s*([A-Za-z][A-Za-z\s/]*)([²³]?)")
_SYMBOL = re.compile(rf"(.*?)\s*(?:%|{_CURRENCY}|¢|°[CF]?)")
# words that make another number of it, or leave open which one is meant
_NO_UNITS = re.compile(
    r"(?:hundred|thousand|(?:m|b|tr|quadr)ill?i(?:on|ard)|tausend|hundert|dozen|half|halves|third|fourth|quarter|fifth|"
    r"sixth|seventh|eighth|ninth|tenth|approx|negat|minus|plus|divid|multipl).*|"
    r"(?:st|nd|rd|th|bn|mn|tn|mm|mio|mrd|mln|bln|kk|mil|mill|mille|grand|gross|score|scores|lakh|lakhs|crore|crores|"
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)(?:e?s)?|"
    r"(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|"
    r"squared|cubed|time|times|factorial|"
    r"or|and|to|through|thru|until|till|over|by|mod|modulo|point|power|root|pi|sqrt|log|ln|sin|cos|tan|exp|"
    r"more|less|fewer|than|least|most|double|twice|triple|between|"
    r"not|no|none|nothing|nil|never|\w+n't|is|are|was|if|but|then|maybe|perhaps|probably|about|around|roughly|nearly|almost|wrong|incorrect|"
    r"false|unknown|undefined|inf|infinity|ish)",
    re.IGNORECASE,
)


def _without_marks(text: str) -> str | None:
    for opening, closing in _MARKS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            return text[len(opening) : -len(closing)]
    return None


def _without_label(text: str) -> str | None:
    """Without words and ``=`` or ``:`` in front, or words that end in `` is``."""
    label = _LABEL.match(text)
    if label is None:
        return None
    words = label[2].split()
    return None if any(map(_NO_UNITS.fullmatch, words[:-1] if words[-1] == "is" else words)) else text[label.end() :]


def _without_unit(text: str) -> str | None:
    """Without a sign, or one to three words, behind."""
    symbol = _SYMBOL.fullmatch(text)
    if symbol:
        return symbol[1]
    unit = _UNIT.fullmatch(text)
    if unit is None:
        return None
    words = re.sub(r"\s*/\s*", "/", unit[2]).split()
    short = bool(unit[3])  # m² is one, but 5 m may be five million
    fits = len(words) <= 3 and all(short or (word.find("/") not in (0, 1) and len(word) > 1) for word in words)
    return unit[1] if fits and not any(map(_NO_UNITS.fullmatch, re.split("[ /]", " ".join(words)))) else None


def _decimal(number: str) -> Decimal:
    sign = "-" if "-" in number or "\u2212" in number else ""
    return Decimal(sign + re.sub(r"[^0-9.]", "", number))
