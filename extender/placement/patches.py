"""A large map that is never changed: setting a key gives a new map that shares the old one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: Changes that are kept beside the base before a new base is made.
_MOST = 64


class Patched(Mapping[K, V]):
    """A base that is shared, and the few changes since; None stands for a key that is gone.

    The ledger keeps one entry a node and changes one at every event. Copying 5,000 entries each
    time costs more than all else that an event does. What differs between two of them is found at
    once while they share a base. Readers who go through all want a plain dict, and get one with
    `flat`.
    """

    __slots__ = ("_base", "_changes", "_flat")

    def __init__(
        self, base: Mapping[K, V] | None = None, changes: Mapping[K, V | None] | None = None
    ) -> None:
        self._base: Mapping[K, V] = base or {}
        self._changes: Mapping[K, V | None] = changes or {}
        self._flat: Mapping[K, V] | None = None if changes else self._base

    def having(self, changes: Mapping[K, V | None]) -> Patched[K, V]:
        """Return the map with these values, and without the keys whose value is None."""
        patched = Patched(self._base, {**self._changes, **changes})
        return patched if len(patched._changes) <= _MOST else Patched(patched.flat())

    def flat(self) -> Mapping[K, V]:
        """Return the same as one dict; made once."""
        if self._flat is None:
            flat = dict(self._base)
            for key, value in self._changes.items():
                if value is None:
                    flat.pop(key, None)
                else:
                    flat[key] = value
            self._flat = flat
        return self._flat

    def differing(self, other: Patched[K, V]) -> list[K]:
        """Return the keys under which the two do not hold the same object."""
        if self._base is other._base:
            keys = {**self._changes, **other._changes}
            return [key for key in keys if self.get(key) is not other.get(key)]
        mine, theirs = self.flat(), other.flat()
        changed = [key for key, value in mine.items() if theirs.get(key) is not value]
        return changed + [key for key in theirs if key not in mine]

    def __getitem__(self, key: K) -> V:
        if key in self._changes:
            value = self._changes[key]
            if value is None:
                raise KeyError(key)
            return value
        return self._base[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self.flat())

    def __len__(self) -> int:
        return len(self.flat())
