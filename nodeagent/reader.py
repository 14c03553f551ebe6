"""Reads the inventory again and again, on a thread of its own: drivers take their time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gpus.model import NodeInventory
from nodeagent.inventory.source import InventoryError, InventorySource
from service.logs import ERROR

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is known of the GPUs now, and what is wrong with their best source."""

    inventory: NodeInventory | None = None
    error: str = "the GPUs have not been read yet"


class InventoryReader:
    """Calls the source every `interval` seconds; `on_change` is told on that thread."""

    def __init__(
        self,
        source: InventorySource,
        *,
        interval: float,
        on_change: Callable[[], None],
    ) -> None:
        self._source = source
        self._interval = interval
        self._on_change = on_change
        self._wanted = threading.Event()
        self._reading = Reading()
        #: Set after the first read, whatever came out; after `recall` not before the next one.
        self.tried = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set."""
        while not stop.is_set():
            self._wanted.clear()
            self._read()
            self._wanted.wait(self._interval)

    def wake(self) -> None:
        """Read at once, as when a GPU reported an error."""
        self._wanted.set()

    def recall(self, published: NodeInventory) -> None:
        """Tell the source what an agent before this one published."""
        self._source.recall(published)
        self.tried.clear()
        self.wake()

    def latest(self) -> Reading:
        """Return what is known now."""
        return self._reading

    def _read(self) -> None:
        before = self._reading
        try:
            inventory = self._source.read()
            reading = Reading(inventory=inventory, error=inventory.trouble)
        except InventoryError as error:
            reading = Reading(error=str(error))
        self._reading = reading
        self.tried.set()
        if reading.error and reading.error != before.error:
            log.warning("GPUs cannot be read", **{ERROR: reading.error})
        if reading != before:
            self._on_change()
