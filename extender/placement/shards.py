"""A map that is never changed: setting a key gives a new map that shares most of the old one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_SHARDS = 256


class Shards(Generic[K, V]):
    """An immutable map in which one change copies 1/256 of the entries.

    The ledger keeps one entry a pod and changes at every event; copying a plain dict of 40,000
    entries costs 0.7 ms, which is more than all else that an event does.
    """

    __slots__ = ("_shards",)

    def __init__(self, shards: tuple[dict[K, V], ...] = ({},) * _SHARDS) -> None:
        self._shards = shards

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        return self._shards[hash(key) % _SHARDS].get(key)

    def set(self, key: K, value: V | None) -> Shards[K, V]:
        """Return a map with this value, or without the key when the value is None."""
        place = hash(key) % _SHARDS
        shard = self._shards[place].copy()
        if value is None:
            shard.pop(key, None)
        else:
            shard[key] = value
        return Shards((*self._shards[:place], shard, *self._shards[place + 1 :]))

    def values(self) -> Iterator[V]:
        """Return all values, in no order that means anything."""
        return (value for shard in self._shards for value in shard.values())

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shards) and self._shards == other._shards

    __hash__ = None  # type: ignore[assignment]  # holds dicts
