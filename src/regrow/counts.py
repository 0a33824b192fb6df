"""Whole numbers as people write them: 1000000, 1_000_000, 1e6, 1M."""

import decimal
import re

from regrow.errors import RegrowError

MOST = 2**31
"""Counters are int32."""

PATTERN = r"[\d_.]+(?:[eE]\+?\d+)?[kKM]?"
"""What may be such a number."""

_NUMBER = re.compile(r"\s*([+-]?[\d_.]+(?:[eE][+-]?\d+)?)([kKM]?)\s*")
_TIMES = {"": 0, "k": 3, "K": 3, "M": 6}


def whole(text: str) -> int:
    """The number that a text writes; `RegrowError` unless it is whole and fits a counter."""
    match = _NUMBER.fullmatch(text)
    try:
        number = decimal.Decimal(match[1]).scaleb(_TIMES[match[2]]) if match else None
    except ArithmeticError:  # two points, or an exponent beyond all bounds
        number = None
    if number is not None and not 0 <= number < MOST:
        raise RegrowError(f"{text} is out of range; it must be from 0 to 2^31 − 1")
    if number is None or number != int(number):
        raise RegrowError(f"'{text}' is not a whole number; write 1000000, 1_000_000, 1e6 or 1M")
    return int(number)
