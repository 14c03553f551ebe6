"""How busy, full, hot and hungry each GPU is at this moment, for metrics.

Nothing is decided by these figures, so they are read only when somebody asks, and a driver that
hangs costs whoever asks a bounded time and nobody else anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpus.model import DeviceId
from nodeagent.inventory.attempts import Attempts, HangingError, Patience, Progress
from nodeagent.inventory.binding import (
    GPU_TEMPERATURE,
    MEMORY_VERSION,
    Handle,
    NvmlError,
    call,
    value,
)
from nodeagent.inventory.session import Session, SessionDownError

#: Seconds that one GPU's questions may take; a healthy one answers all of them in a millisecond.
PATIENCE = 0.5
#: Seconds for which figures are told again: several who ask at once cost one look.
FRESH = 1.0
#: Seconds to wait for the look of somebody else.
_QUEUE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One GPU at one moment; what the card or the driver does not tell is None.

    `utilization` is the share of the last sample period in which a kernel ran, 0 to 1. With MIG
    enabled the driver tells none. `memory_used` is what programs hold, without what the driver
    keeps for itself.
    """

    utilization: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None


class Telemetry:
    """Reads the figures of GPUs by UUID; any thread may ask."""

    def __init__(
        self,
        session: Session,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._clock = clock
        limits = Patience(call=patience, starting=patience)
        self._attempts: Attempts[dict[DeviceId, Figures]] = Attempts(
            limits, now=lambda: datetime.now(UTC)
        )
        self._lock = threading.Lock()  # guards the attempts and the next three
        #: Numbers by which a GPU that hangs is passed over; a GPU keeps its own.
        self._numbers: dict[DeviceId, int] = {}
        self._read_at = float("-inf")
        self._figures: dict[DeviceId, Figures] = {}

    def read(self, uuids: Sequence[DeviceId]) -> dict[DeviceId, Figures]:
        """Return the figures of these GPUs; those that do not answer in time are left out.

        Never raises, and takes at most `patience` for each GPU that begins to hang.
        """
        if not self._lock.acquire(timeout=_QUEUE):
            return {}
        try:
            if self._clock() - self._read_at >= FRESH:
                self._figures = self._look(uuids)
                self._read_at = self._clock()
            return {uuid: self._figures[uuid] for uuid in uuids if uuid in self._figures}
        finally:
            self._lock.release()

    def _look(self, uuids: Sequence[DeviceId]) -> dict[DeviceId, Figures]:
        def look(progress: Progress, skip: Collection[int]) -> dict[DeviceId, Figures]:
            found = {}
            with self._session.use():
                for uuid in uuids:
                    number = self._numbers.setdefault(uuid, len(self._numbers))
                    if number in skip:
                        continue
                    progress.note(number)
                    try:
                        found[uuid] = _figures(call("nvmlDeviceGetHandleByUUID", uuid))
                    except NvmlError:
                        continue  # health is told by others, with its reason
            return found

        try:
            return self._attempts.run(look)[0]
        except (HangingError, SessionDownError):
            return {}


def _figures(handle: Handle) -> Figures:
    """Ask one GPU; raises `NvmlError` where it cannot be asked at all."""
    memory = _told("nvmlDeviceGetMemoryInfo", handle, MEMORY_VERSION)
    if memory is None:  # drivers before 510
        memory = _told("nvmlDeviceGetMemoryInfo", handle)
    busy = _told("nvmlDeviceGetUtilizationRates", handle)
    milliwatts = _told("nvmlDeviceGetPowerUsage", handle)
    return Figures(
        utilization=busy.gpu / 100 if busy is not None else None,
        memory_used_bytes=int(memory.used) if memory is not None else None,
        memory_total_bytes=int(memory.total) if memory is not None else None,
        temperature_celsius=_told("nvmlDeviceGetTemperature", handle, GPU_TEMPERATURE),
        power_watts=milliwatts / 1000 if milliwatts is not None else None,
    )


def _told(function: str, *arguments: object) -> Any:
    """An answer, or None: a figure that fails leaves the others alone, a lost GPU has none."""
    try:
        return value(function, *arguments)
    except NvmlError as error:
        if error.lost:
            raise
        return None
