"""The GPUs by NVIDIA's own library.

It is loaded from below the driver root by absolute path, so the container needs no NVIDIA runtime,
and the driver may arrive, be replaced or leave while the agent runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gpus.model import DeviceId, Gpu, Health, Link, Source, Withheld
from nodeagent.inventory import kernel
from nodeagent.inventory.advice import explain
from nodeagent.inventory.attempts import (
    Attempts,
    HangingError,
    Patience,
    Progress,
    no_answer,
)
from nodeagent.inventory.binding import NvmlError
from nodeagent.inventory.enumeration import Enumeration, Enumerator
from nodeagent.inventory.session import Session, SessionDownError
from nodeagent.inventory.source import InventoryError, Sighting, Survey
from nodeagent.inventory.topology import read_links
from nodeagent.inventory.xids import HealthPolicy

#: Seconds between restarts of NVML while a GPU is missing that may be back: it lists GPUs only when
#: it starts.
REENUMERATE_AFTER = 10.0

log = structlog.get_logger()


class NvmlSource:
    """Looks at the GPUs through NVML; for one thread at a time."""

    def __init__(
        self,
        driver_root: Path,
        *,
        policy: HealthPolicy,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._driver_root = driver_root
        self._clock = clock
        #: For the thread that waits for events.
        self.session = Session(driver_root)
        self._attempts: Attempts[Enumeration] = Attempts(patience, now=now)
        self._settled: dict[DeviceId, Gpu] = {}
        self._enumerator = Enumerator(driver_root=driver_root, policy=policy, settled=self._settled)
        self._generation = 0
        self._started_at = clock()
        self._restart = False
        self._bound: dict[str, int] = {}
        #: The GPU of each index, since NVML came up.
        self._listed: dict[int, DeviceId] = {}
        #: PCI addresses of all GPUs that ever answered, and those that do not answer now.
        self._seen: dict[DeviceId, str | None] = {}
        self._missing: set[DeviceId] = set()
        self._links: dict[DeviceId, tuple[Link, ...]] = {}
        self._linked: list[tuple[DeviceId, bool]] | None = None

    def survey(self) -> Survey:
        """All GPUs that NVML lists; raises `InventoryError` if it does not work at all."""
        try:
            found, hanging = self._attempts.run(self._attempt)
        except HangingError as error:
            raise InventoryError(
                str(error),
                advice="see `dmesg` on the node for NVRM lines; a hanging driver needs a reboot",
            ) from error
        except NvmlError as error:
            # The driver may have been unloaded under the library, which then never recovers.
            self._restart = True
            raise explain(error) from error
        except SessionDownError as error:
            raise InventoryError("NVML is not up", advice="wait for its next start") from error
        return self._told(found, hanging)

    def close(self) -> None:
        """Take NVML down."""
        self.session.close()

    def _attempt(self, progress: Progress, skip: Collection[int]) -> Enumeration:
        """Look once, in a thread that may never come back."""
        if not skip:
            self._refresh()
        with self.session.use():
            progress.note(None)
            found = self._enumerator.enumerate(progress, skip=skip)
            self._relink(found, progress)
            progress.note(None)
        return found

    def _refresh(self) -> None:
        """Restart NVML where that can change what it tells."""
        bound = kernel.bound_gpus(self._driver_root)
        restart = self._restart or bound != self._bound or self._overdue(bound)
        self.session.refresh(restart=restart)
        if self.session.generation != self._generation:
            self._bound = bound
            self._generation = self.session.generation
            self._restart = False
            self._started_at = self._clock()
            self._linked = None
            self._listed.clear()
            self._settled.clear()

    def _overdue(self, bound: Collection[str]) -> bool:
        """Whether a GPU is missing that may be back, for all that the kernel knows."""
        if self._clock() - self._started_at < REENUMERATE_AFTER:
            return False
        return any(not bound or self._seen.get(uuid) in (None, *bound) for uuid in self._missing)

    def _relink(self, found: Enumeration, progress: Progress) -> None:
        # Links change with the set of GPUs and with MIG only, and asking for them takes hundreds
        # of calls.
        linked = [(gpu.uuid, gpu.mig_enabled) for gpu in found.gpus.values()]
        if linked != self._linked:
            self._links = read_links(found.located, note=progress.note)
            self._linked = linked

    def _told(self, found: Enumeration, hanging: Mapping[int, datetime]) -> Survey:
        self._listed.update({gpu.index: gpu.uuid for gpu in found.gpus.values()})
        failed, unnamed = self._failures(found, hanging)
        present = [
            Sighting(
                gpu=replace(gpu, links=self._links.get(uuid, ())),
                complete=uuid not in found.incomplete,
            )
            for uuid, gpu in found.gpus.items()
        ]
        # One that answers again was lost to the events too: they must be asked for anew.
        self._restart = not self._missing.isdisjoint(found.gpus)
        self._seen.update({uuid: gpu.bdf for uuid, gpu in found.gpus.items()})
        self._missing = self._seen.keys() - found.gpus.keys()
        return Survey(
            source=Source.NVML,
            driver=found.driver,
            cuda=found.cuda,
            sightings=(*present, *failed),
            # Without a name, as many as are missing are the missing ones.
            withheld=tuple(unnamed[len(self._missing - {each.gpu.uuid for each in failed}) :]),
        )

    def _failures(
        self, found: Enumeration, hanging: Mapping[int, datetime]
    ) -> tuple[list[Sighting], list[Withheld]]:
        """The GPUs that do not answer as they should, by name where it is known."""
        told: dict[int, tuple[Health, str]] = {
            index: (Health.UNMONITORED, no_answer(since)) for index, since in hanging.items()
        }
        for index, error in found.failures.items():
            lost = isinstance(error, NvmlError) and error.lost
            told[index] = (Health.LOST if lost else Health.FAULTY, str(error))
        failed, unnamed = [], []
        for index, (health, reason) in sorted(told.items()):
            uuid = self._listed.get(index)
            if uuid is None or uuid in found.gpus:
                unnamed.append(Withheld(reason=f"GPU {index} of NVML: {reason}"))
                continue
            gpu = Gpu(uuid=uuid, index=index, health=health, health_reason=reason)
            failed.append(Sighting(gpu=gpu, complete=False))
        return failed, unnamed
