"""The verifier of GSM8K-style answers: is the number right?"""

import re
from decimal import Decimal, InvalidOperation

NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+"
_STRICT = re.compile(rf"####\s*({NUMBER})")
_NUMBER = re.compile(NUMBER)


def strict_answer(text: str) -> Decimal | None:
    """The number behind the last ``####``; None without one. Commas, ``$`` and a trailing dot are ignored."""
    found = _STRICT.findall(text)
    return _decimal(found[-1]) if found else None


def flexible_answer(text: str) -> Decimal | None:
    """The last number of the text, wherever it stands; None without one."""
    found = _NUMBER.findall(text)
    return _decimal(found[-1]) if found else None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None
