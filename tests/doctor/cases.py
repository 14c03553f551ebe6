"""A case of a node in which one thing is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.doctor.nodes import NodeTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is done to a healthy node, what must be told first, and all that may follow from it.

    `saw` and `mend` are words that must be in what is told.
    """

    name: str
    on: str
    break_it: Callable[[NodeTree], object]
    first: str
    then: frozenset[str] = frozenset()
    saw: str
    mend: str
