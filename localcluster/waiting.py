"""Waiting for a condition with a deadline.

What is waited for is the caller's business; nothing else belongs here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")


class WaitedTooLong(Exception):
    """A condition did not come true before its deadline; the text says which and what was seen
    last.
    """


def until(
    probe: Callable[[], _Value | None], *, timeout: float, what: str, interval: float = 0.05
) -> _Value:
    """The first true value of `probe`, asked every `interval` seconds, or `WaitedTooLong`."""
    deadline = time.monotonic() + timeout
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise WaitedTooLong(f"{what}: not within {timeout:g} s")
        time.sleep(interval)
