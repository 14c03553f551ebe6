"""Keeps a source that hangs from freezing its caller: a broken driver may never return from a call.

The hanging read is left alone in its thread, for nothing can end it; its caller gets what was known
last, with all GPUs unmonitored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from gpus.model import Health, NodeInventory
from nodeagent.inventory.source import InventoryError, InventorySource


@dataclass(slots=True)
class _Reading:
    """One read in its own thread, and its outcome once `done` is set."""

    began: datetime
    done: threading.Event = field(default_factory=threading.Event)
    inventory: NodeInventory | None = None
    error: Exception | None = None


class WatchedSource:
    """A source whose `read` returns within `deadline` seconds.

    Invariant: at most one read of the inner source runs. For one caller at a time.
    """

    def __init__(
        self,
        source: InventorySource,
        *,
        deadline: float,
        now: Callable[[], datetime],
        name: str = "NVML",
    ) -> None:
        self._source = source
        self._deadline = deadline
        self._now = now
        self._name = name
        self._last: NodeInventory | None = None
        self._reading: _Reading | None = None

    def read(self) -> NodeInventory:
        """What the source answers, or in time what it answered last.

        Raises what the source raises, and `InventoryError` if it hangs and never answered.
        """
        hanging = self._reading
        if hanging is not None and not hanging.done.is_set():
            return self._last_known(hanging)
        reading = self._reading = _Reading(began=self._now())
        threading.Thread(target=self._run, args=(reading,), name="inventory", daemon=True).start()
        if not reading.done.wait(self._deadline):
            return self._last_known(reading)
        if reading.error is not None:
            raise reading.error
        if reading.inventory is None:
            raise RuntimeError("a finished read has neither an inventory nor an error")
        self._last = reading.inventory
        return reading.inventory

    def _run(self, reading: _Reading) -> None:
        try:
            reading.inventory = self._source.read()
        except Exception as error:  # noqa: BLE001 (raised again in the caller's thread)
            reading.error = error
        finally:
            reading.done.set()

    def _last_known(self, reading: _Reading) -> NodeInventory:
        since = f"{self._name} has not answered since {reading.began:%Y-%m-%dT%H:%M:%SZ}"
        if self._last is None:
            raise InventoryError(
                since,
                advice="see `dmesg` on the node for NVRM lines; a hanging driver needs a reboot",
            )
        gpus = (
            replace(gpu, health=Health.UNMONITORED, health_reason=since)
            if gpu.health is Health.HEALTHY
            else gpu
            for gpu in self._last.gpus
        )
        return replace(self._last, gpus=tuple(gpus))
