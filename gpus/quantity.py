"""Kubernetes quantities as integers.

The rule is apimachinery `pkg/api/resource/quantity.go`: a decimal number with an optional suffix of
powers of 1000 (`n u m k M G T P E`), of 1024 (`Ki` … `Ei`), or a decimal exponent (`e3`, `E3`).
"""

from __future__ import annotations

import re
from fractions import Fraction

#: apimachinery caps quantities at 2^63-1.
MAX = 2**63 - 1
#: Longer than any quantity that means something; bounds the work on hostile input.
_MAX_LENGTH = 64
_MAX_EXPONENT = 30
#: Digits of a number that is surely in range.
_SHORT = 18

_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,4}))?",
    re.ASCII,
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


class QuantityError(ValueError):
    """The text is not a quantity, or not one that the caller can use."""


def parse(text: str | int | float) -> Fraction:
    """Return the exact value of a quantity; JSON numbers are read as their decimal text.

    Raises `QuantityError` for anything that the API server would refuse, and for numbers beyond
    2^63-1, which it would cut down to that.
    """
    if isinstance(text, int) and abs(text) > MAX:  # before str(), which refuses very long ones
        raise QuantityError("the number is out of range")
    written = str(text)
    match = _FORM.fullmatch(written) if len(written) <= _MAX_LENGTH else None
    if match is None:
        raise QuantityError(f"{written[:_MAX_LENGTH]!r} is not a Kubernetes quantity")
    value = Fraction(match["number"].rstrip("."))
    if match["exponent"] is not None:
        exponent = int(match["exponent"])
        if abs(exponent) > _MAX_EXPONENT:
            raise QuantityError(f"{written!r} is out of range")
        value *= Fraction(10) ** exponent
    elif match["suffix"] in _DECIMAL:
        value *= Fraction(10) ** _DECIMAL[match["suffix"]]
    elif match["suffix"] in _BINARY:
        value *= 2 ** _BINARY[match["suffix"]]
    if abs(value) > MAX:
        raise QuantityError(f"{written!r} is out of range")
    return value


def whole(text: str | int | float) -> int:
    """Return a quantity that must be a whole number, zero or more: a count or bytes."""
    if isinstance(text, str) and len(text) < _SHORT and text.isascii() and text.isdigit():
        return int(text)  # by far the most, and ten times as fast
    value = parse(text)
    if value.denominator != 1 or value < 0:
        raise QuantityError(f"{text!r} must be a whole number, zero or more")
    return value.numerator


def written(size: int) -> str:
    """Return bytes as people write them: in the largest unit of 1024 that needs no fraction."""
    unit = next((u for u in reversed(_BINARY) if size and size % 2 ** _BINARY[u] == 0), None)
    return f"{size >> _BINARY[unit]}{unit}" if unit else str(size)
