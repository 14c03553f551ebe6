"""The device plugins of this node, one a resource, on a thread of their own.

Whether they shall serve is told from outside (`serve`, `stand_aside`, `withdraw`); the thread
then keeps it so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from gpus.model import ResourceName
from nodeagent.deviceplugin.allocation import Handover
from nodeagent.deviceplugin.devices import Offer
from nodeagent.deviceplugin.registration import KUBELET_SOCKET, Registrar, Stamp, stamp
from nodeagent.path import OwnPlugin

#: Seconds between looks at the sockets.
_TICK = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far the plugins have come with kubelet, the least successful one counting."""

    own: OwnPlugin = OwnPlugin.IDLE
    error: str = ""
    #: Kubelet holds a stream of ours now, which `own` may show a little later.
    heard: bool = False
    #: `time.time_ns()` of the last sign that kubelet had chosen us: registration or allocation.
    chosen_ns: int = 0


class _Mode(Enum):
    OFF = auto()
    ASIDE = auto()
    SERVE = auto()


class PluginSet:
    """Runs the plugins; the methods may be called from any thread.

    `on_change` is called, on the thread of `run`, when kubelet started or stopped to listen to us,
    or asked us for devices.
    """

    def __init__(
        self,
        folder: Path,
        *,
        handover: Callable[[], Handover],
        patience: float,
        on_change: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._handover = handover
        self._patience = patience
        self._on_change = on_change
        self._woken = threading.Event()
        self._lock = threading.Lock()  # guards the next four
        self._mode = _Mode.OFF
        self._offers: dict[ResourceName, Offer] = {}
        self._status = Status()
        self._refused_by: Stamp | None = None
        self._registrars: dict[ResourceName, Registrar] = {}  # the thread's own

    def serve(self, offers: Mapping[ResourceName, Offer]) -> None:
        """Register with kubelet, or go on, with these devices; a resource that is gone is empty."""
        with self._lock:
            gone = {
                resource: replace(offer, devices=())
                for resource, offer in self._offers.items()
                if resource not in offers
            }
            self._offers = {**gone, **offers}
            self._mode = _Mode.SERVE
        self._woken.set()

    def stand_aside(self) -> None:
        """Keep what kubelet holds of us open, but let the other plugin serve."""
        with self._lock:
            if self._mode is _Mode.SERVE:
                self._mode = _Mode.ASIDE
        self._woken.set()

    def withdraw(self) -> None:
        """Stop serving; kubelet then reports no allocatable devices."""
        with self._lock:
            self._mode = _Mode.OFF
        self._woken.set()

    def status(self) -> Status:
        """Return how far the plugins have come; a refusal lasts until kubelet restarts."""
        with self._lock:
            status, mode = self._status, self._mode
            refused = self._refused_by is not None
            refused = refused and self._refused_by == stamp(self._folder / KUBELET_SOCKET)
        if mode is not _Mode.SERVE:
            return Status(own=OwnPlugin.REFUSED, error=status.error) if refused else status
        registrars = list(self._registrars.values())
        return replace(status, heard=any(r.service.heard() for r in registrars))

    def run(self, stop: threading.Event) -> None:
        """Keep the plugins as they were asked to be until `stop` is set, then end them."""
        while not stop.is_set():
            before = self._status
            self._step()
            if self._status != before:
                self._on_change()
            self._woken.wait(_TICK)
            self._woken.clear()
        self._close()

    def wake(self) -> None:
        """Make `run` look at its `stop` at once."""
        self._woken.set()

    def _step(self) -> None:
        with self._lock:
            mode, wanted = self._mode, dict(self._offers)
        match mode:
            case _Mode.OFF:
                self._close()
            case _Mode.ASIDE:
                for registrar in self._registrars.values():
                    registrar.stand_aside()
            case _Mode.SERVE:
                for resource, offer in wanted.items():
                    self._drive(resource, offer)
        self._note(mode)

    def _drive(self, resource: ResourceName, offer: Offer) -> None:
        registrar = self._registrars.get(resource)
        if registrar is None:
            registrar = self._registrars[resource] = Registrar(
                self._folder,
                offer,
                handover=self._handover,
                patience=self._patience,
                on_change=self._woken.set,
            )
        registrar.service.update(offer)
        registrar.step()

    def _note(self, mode: _Mode) -> None:
        registrars = list(self._registrars.values())
        if mode is not _Mode.SERVE or not registrars:
            own, error = OwnPlugin.IDLE, self._status.error
        else:
            order = (OwnPlugin.REFUSED, OwnPlugin.STARTING, OwnPlugin.SERVING)
            worst = min(registrars, key=lambda registrar: order.index(registrar.state))
            own, error = worst.state, worst.error
        chosen = max((max(r.registered_ns, r.service.last_used_ns) for r in registrars), default=0)
        with self._lock:
            self._status = Status(own=own, error=error, chosen_ns=chosen)
            if own is OwnPlugin.REFUSED:
                self._refused_by = stamp(self._folder / KUBELET_SOCKET)

    def _close(self) -> None:
        for registrar in self._registrars.values():
            registrar.close()
        self._registrars.clear()
