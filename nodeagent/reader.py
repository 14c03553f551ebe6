"""Reads the inventory again and again, on a thread of its own: drivers take their time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from gpus.model import Health, NodeInventory
from nodeagent.inventory.source import InventoryError, InventorySource
from service.logs import ERROR

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is known of the GPUs now.

    Without an answer, the GPUs that were seen before are still listed, but none as healthy.
    """

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
        #: Set after the first read, whatever came out.
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

    def latest(self) -> Reading:
        """Return what is known now."""
        return self._reading

    def _read(self) -> None:
        before = self._reading
        try:
            reading = Reading(inventory=self._source.read(), error="")
        except InventoryError as error:
            reading = Reading(inventory=_lost(before.inventory, error.detail), error=str(error))
        self._reading = reading
        self.tried.set()
        if reading.error and reading.error != before.error:
            log.warning("GPUs cannot be read", **{ERROR: reading.error})
        if reading != before:
            self._on_change()


def _lost(inventory: NodeInventory | None, reason: str) -> NodeInventory | None:
    if inventory is None:
        return None
    gpus = tuple(
        gpu
        if gpu.health is not Health.HEALTHY
        else replace(gpu, health=Health.LOST, health_reason=reason)
        for gpu in inventory.gpus
    )
    return replace(inventory, gpus=gpus)
