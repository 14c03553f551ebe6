"""Runs a reflector on a thread, for tests that look at what its handler is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kube.client import Client, Params
from kube.connection import Connection
from kube.objects import Pod
from kube.reflector import Event, Reflector, WatchTiming

#: Comes back at once after what goes wrong, which a busy machine's silence is not.
TIMING = WatchTiming(idle=30, backoff_first=0.05, backoff_cap=0.2)


class Follower:
    """What the handler was told, as (kind, name)."""

    def __init__(
        self, connection: Connection, path: str, *, params: Params | None, timing: WatchTiming
    ) -> None:
        self._changed = threading.Condition()
        self._told: list[tuple[str, str]] = []
        self.client = Client(connection, timeout=5)
        self.reflector = Reflector(
            self.client, path, type=Pod, on_event=self._take, params=params, timing=timing
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.reflector.run, args=(self.stop,))

    def _take(self, event: Event[Pod]) -> None:
        with self._changed:
            self._told.append((event.kind.value, event.object.metadata.name))
            self._changed.notify_all()

    @property
    def told(self) -> list[tuple[str, str]]:
        with self._changed:
            return list(self._told)

    def wait_told(self, *expected: tuple[str, str], timeout: float = 30.0) -> None:
        """Return once exactly these have been told, in this order, since the start."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._told) >= len(expected), timeout)
            assert self._told == list(expected), f"told {self._told}"

    def wait_lives(self, *expected: tuple[str, str], timeout: float = 30.0) -> None:
        """As `wait_told`, but whatever was MODIFIED meanwhile does not matter."""

        def lives() -> list[tuple[str, str]]:
            return [told for told in self._told if told[0] != "MODIFIED"]

        with self._changed:
            self._changed.wait_for(lambda: len(lives()) >= len(expected), timeout)
            assert lives() == list(expected), f"told {self._told}"

    def end(self) -> None:
        self.stop.set()
        self.reflector.close()
        self.thread.join(10)
        assert not self.thread.is_alive(), "close did not wake the reader"


@contextmanager
def following(
    connection: Connection,
    path: str,
    *,
    params: Params | None = None,
    timing: WatchTiming = TIMING,
) -> Iterator[Follower]:
    """Follow a collection until the end of the block."""
    follower = Follower(connection, path, params=params, timing=timing)
    follower.thread.start()
    try:
        yield follower
    finally:
        follower.end()
        follower.client.close()
