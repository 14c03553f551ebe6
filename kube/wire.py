"""JSON from foreign hands to typed objects, safe from several threads. Knows no object by name."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_preparing = threading.Lock()  # guards filling the next one
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decoder(type: type[T]) -> msgspec.json.Decoder[T]:  # noqa: A002 - as msgspec's
    """Return the decoder of a type, the only way to one for types that threads share.

    msgspec works out the fields of a struct when it is first decoded, and publishes them before it
    is done: two threads at that moment, also by way of different structs that have a third one
    inside, end the process with a segmentation fault (seen with 0.22.0).
    """
    found = _decoders.get(type)
    if found is None:
        with _preparing:
            found = _decoders[type] = msgspec.json.Decoder(type)
    return found


def convert(found: Any, type: type[T]) -> T:  # noqa: A002 - as msgspec's
    """Return what was decoded as plain dicts and lists as `type`; raises `ValidationError`."""
    decoder(type)
    return msgspec.convert(found, type)
