"""The inventory by NVIDIA's own library.

It is loaded from below the driver root by absolute path, so the container needs no NVIDIA runtime,
and the driver may arrive, be replaced or leave while the agent runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from gpus.model import DeviceId, Gpu, Health, Link, NodeInventory, Source
from nodeagent.inventory import kernel, memory
from nodeagent.inventory.advice import explain
from nodeagent.inventory.binding import NvmlError
from nodeagent.inventory.enumeration import Enumeration, enumerate_gpus
from nodeagent.inventory.events import XidEvent
from nodeagent.inventory.health import xid_reason
from nodeagent.inventory.session import Session
from nodeagent.inventory.topology import read_links

#: Seconds before NVML is restarted to find a lost GPU again; twice as long at each attempt, up to
#: so many times as long.
REENUMERATE_AFTER = 60.0
_MOST_PATIENCE = 16

log = structlog.get_logger()


class NvmlSource:
    """Reads the inventory through NVML, and keeps what was known of GPUs that went away.

    `read` and `close` are for one thread at a time; `report` is for any.
    """

    def __init__(
        self,
        driver_root: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        reenumerate_after: float = REENUMERATE_AFTER,
    ) -> None:
        self._driver_root = driver_root
        self._clock = clock
        self._reenumerate_after = reenumerate_after
        #: For the thread that waits for events.
        self.session = Session(driver_root)
        self._restarted_at = clock()
        self._patience = 1
        self._returned = False
        self._bound: frozenset[str] = frozenset()
        self._known: dict[DeviceId, Gpu] = {}
        #: The GPU of each index, since NVML came up.
        self._listed: dict[int, DeviceId] = {}
        self._unnamed: dict[int, str] = {}
        self._links: dict[DeviceId, tuple[Link, ...]] = {}
        self._linked: list[tuple[DeviceId, bool]] | None = None
        self._faults: dict[DeviceId, str] = {}
        self._faults_lock = threading.Lock()

    def read(self) -> NodeInventory:
        """The machine as it is now; raises `InventoryError` if NVML does not work at all."""
        self._refresh()
        with self.session.use():
            try:
                found = enumerate_gpus(self._driver_root)
            except NvmlError as error:
                raise explain(error) from error
            linked = self._with_links(found)
        present = memory.with_remembered(linked, known=self._known, incomplete=found.incomplete)
        # NVML lists it as before, but events of it were lost with it.
        self._returned = any(uuid in present for uuid in memory.lost(self._known.values()))
        self._known = memory.with_missing(
            present, known=self._known, failures=self._failures(found)
        )
        with self._faults_lock:
            for uuid in memory.lost(self._known.values()):
                self._faults.pop(uuid, None)
            gpus = memory.with_faults(self._known, self._faults)
        return NodeInventory(
            source=Source.NVML,
            driver=found.driver,
            cuda=found.cuda,
            gpus=tuple(sorted(gpus.values(), key=lambda gpu: gpu.index)),
        )

    def report(self, event: XidEvent) -> None:
        """Count a GPU as faulty from the next `read` on, until it was lost and came back, or the
        driver was replaced, or the agent restarted.

        An event that NVML could not attribute is counted against all GPUs, as NVIDIA's device
        plugin does.
        """
        with self._faults_lock:
            for uuid in [event.uuid] if event.uuid else list(self._known):
                self._faults[uuid] = xid_reason(event.xid)

    def close(self) -> None:
        """Take NVML down."""
        self.session.close()

    def _refresh(self) -> None:
        """Restart NVML where that can change what it tells.

        The kernel drives other GPUs than before; a GPU is lost and may be back; or one came back
        by itself, and its events would not be heard.
        """
        bound = kernel.bound_gpus(self._driver_root)
        overdue = self._lost_gpu_is_overdue()
        generation, library = self.session.generation, self.session.library
        self.session.refresh(restart=bound != self._bound or self._returned or overdue)
        self._bound = bound
        if self.session.generation == generation:
            return
        self._restarted_at = self._clock()
        self._listed, self._unnamed, self._linked = {}, {}, None
        if self.session.library != library:
            with self._faults_lock:
                self._faults.clear()

    def _lost_gpu_is_overdue(self) -> bool:
        if not any(memory.lost(self._known.values())):
            self._patience = 1
            return False
        waited = self._clock() - self._restarted_at
        if waited < self._reenumerate_after * self._patience:
            return False
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        return True

    def _with_links(self, found: Enumeration) -> dict[DeviceId, Gpu]:
        # Links change with the set of GPUs and with MIG only, and asking for them takes hundreds
        # of calls.
        linked = [(gpu.uuid, gpu.mig_enabled) for gpu in found.gpus.values()]
        if linked != self._linked:
            self._links = read_links(found.located)
            self._linked = linked
        return {
            uuid: replace(gpu, links=self._links.get(uuid, ())) for uuid, gpu in found.gpus.items()
        }

    def _failures(self, found: Enumeration) -> dict[DeviceId, tuple[Health, str]]:
        self._listed.update({gpu.index: gpu.uuid for gpu in found.gpus.values()})
        failures = {}
        for index, error in found.failures.items():
            is_lost = isinstance(error, NvmlError) and error.lost
            if uuid := self._listed.get(index):
                failures[uuid] = (Health.LOST if is_lost else Health.FAULTY, str(error))
            elif self._unnamed.get(index) != str(error):
                log.warning("a GPU cannot be listed", index=index, reason=str(error))
                self._unnamed[index] = str(error)
        return failures
