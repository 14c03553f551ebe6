"""Waits for Xid events, which the driver reports when a GPU or a program on it fails.

What follows from an event is the caller's business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from gpus.model import DeviceId
from nodeagent.inventory.binding import (
    TIMEOUT,
    XID_EVENT,
    Handle,
    NvmlError,
    address,
    call,
)
from nodeagent.inventory.device import UnusableGpuError, uuid_of
from nodeagent.inventory.session import Session, SessionDownError

#: How long NVML may have to wait for the watcher before it is restarted.
_WAIT_MS = 500
#: Seconds before waiting is tried again after NVML refused it: a lost GPU ends every wait at once
#: until it is left out.
_PAUSE = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class XidEvent:
    """An Xid of one GPU; without a UUID, NVML could not tell of which."""

    xid: int
    uuid: DeviceId | None = None


class XidWatcher:
    """Calls back for every Xid, and when a GPU is lost, as long as NVML is up.

    Events that happen while NVML restarts are not seen; NVML keeps none.
    """

    def __init__(
        self,
        session: Session,
        on_xid: Callable[[XidEvent], None],
        *,
        on_lost: Callable[[], None],
    ) -> None:
        self._session = session
        self._on_xid = on_xid
        self._on_lost = on_lost
        self._refused = ""
        self._unwatched: dict[int, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set; returns within a second or so of it."""
        while not stop.is_set():
            try:
                with self._session.use():
                    self._watch(stop)
            except SessionDownError:
                self._session.wait_until_up(_PAUSE)
            except NvmlError as error:
                if error.lost:
                    self._on_lost()
                self._note_refusal(str(error))
                stop.wait(_PAUSE)

    def _note_refusal(self, text: str) -> None:
        # Some platforms have no events at all: once is enough.
        if text != self._refused:
            log.warning("Xid events cannot be read", error=text)
            self._refused = text

    def _watch(self, stop: threading.Event) -> None:
        events = call("nvmlEventSetCreate")
        try:
            uuids = self._register(events)
            while not stop.is_set() and not self._session.wanted_back:
                data = _next_event(events)
                if data is not None:
                    self._tell(data, uuids)
        finally:
            call("nvmlEventSetFree", events)

    def _register(self, events: Handle) -> dict[int | None, DeviceId]:
        """Register all GPUs that answer, and tell which handle is whose."""
        uuids: dict[int | None, DeviceId] = {}
        unwatched = {}
        for index in range(call("nvmlDeviceGetCount")):
            try:
                handle = call("nvmlDeviceGetHandleByIndex", index)
                uuid = uuid_of(handle)
                call("nvmlDeviceRegisterEvents", handle, XID_EVENT, events)
            except (NvmlError, UnusableGpuError) as error:
                unwatched[index] = str(error)
                continue
            uuids[address(handle)] = uuid
        # NVML restarts again and again while a GPU is lost.
        if unwatched != self._unwatched:
            log.info("GPUs that are not watched for Xids", reasons=unwatched)
            self._unwatched = unwatched
        return uuids

    def _tell(self, data: Any, uuids: dict[int | None, DeviceId]) -> None:
        xid = int(data.eventData)
        uuid = uuids.get(address(data.device))
        if data.eventType != XID_EVENT:
            log.debug("an event was ignored", type=data.eventType, gpu=uuid)
            return
        log.warning("a GPU reported an Xid", xid=xid, gpu=uuid)
        self._on_xid(XidEvent(xid=xid, uuid=uuid))


def _next_event(events: Handle) -> Any:
    try:
        return call("nvmlEventSetWait_v2", events, _WAIT_MS)
    except NvmlError as error:
        if error.code == TIMEOUT:
            return None
        raise
