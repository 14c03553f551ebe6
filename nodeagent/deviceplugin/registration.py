"""Keeps one resource registered with kubelet, whatever happens to its sockets.

Kubelet empties the plugin folder when it starts and forgets its plugins, so a plugin registers
anew when kubelet.sock is another file, when its own socket is gone, or when kubelet hung up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from gpus.model import ResourceName
from kube.backoff import Backoff
from nodeagent.deviceplugin.allocation import Handover
from nodeagent.deviceplugin.devices import Offer
from nodeagent.deviceplugin.server import (
    RESOURCE,
    PluginServer,
    PluginService,
    options,
)
from nodeagent.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from nodeagent.path import OwnPlugin
from nodeagent.unix_grpc import dial, explain
from service.logs import ERROR

API_VERSION = "v1beta1"
KUBELET_SOCKET = "kubelet.sock"
#: Start of our sockets' names; every other socket in the folder is somebody else's.
SOCKET_PREFIX = "gpudetour-"

#: Seconds for our own answer, and for kubelet's, which dials us for up to 10 s first.
_SELF_TIMEOUT = 5.0
_KUBELET_TIMEOUT = 15.0
#: Seconds from Register until kubelet should have opened its stream.
_STREAM_TIMEOUT = 3.0
#: A stream that lasted so long shows that kubelet means it: earlier failures are forgotten.
_STABLE = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Tells a socket from another that took its name."""

    inode: int
    changed_ns: int


def stamp(socket: Path) -> Stamp | None:
    """Return the stamp of a file, None where there is none or it cannot be seen."""
    try:
        found = socket.stat()
    except OSError:
        return None
    return Stamp(inode=found.st_ino, changed_ns=found.st_ctime_ns)


def socket_name(resource: ResourceName) -> str:
    """Return the file name of our socket, such as `gpudetour-nvidia.com_gpu.sock`."""
    return f"{SOCKET_PREFIX}{resource.replace('/', '_')}.sock"


class Registrar:
    """The plugin of one resource. All methods are for one thread.

    `step` does the next thing that is due and never waits for more than one call's timeout.
    """

    def __init__(
        self,
        folder: Path,
        offer: Offer,
        *,
        handover: Callable[[], Handover],
        patience: float,
        on_change: Callable[[], None],
    ) -> None:
        self.resource = offer.resource
        self.service = PluginService(offer, handover=handover, on_change=on_change)
        self._kubelet = folder / KUBELET_SOCKET
        self._server = PluginServer(self.service, folder / socket_name(offer.resource))
        self._patience = patience
        self._clock = time.monotonic
        self._backoff = Backoff(first=0.5, cap=10.0)
        self._registered_with: Stamp | None = None
        self._registered_at = 0.0
        self._failing_since: float | None = None
        self._failing_with: Stamp | None = None
        self._retry_at = 0.0
        self.state = OwnPlugin.STARTING
        self.error = ""
        #: `time.time_ns()` of the last successful Register.
        self.registered_ns = 0

    def step(self) -> None:
        """Bring the registration forward by one step, and note its state and error."""
        kubelet = stamp(self._kubelet)
        if kubelet is None:
            self.state, self.error = OwnPlugin.STARTING, f"{self._kubelet} is not there"
            return
        if self._failing_with not in (None, kubelet):
            self._forget_failures()  # another kubelet: what the last one did says nothing
        if self._registered_with == kubelet and self._server.running:
            self._follow_stream(kubelet)
        elif self._clock() >= self._retry_at:
            self._try(kubelet)

    def stand_aside(self) -> None:
        """Let another plugin serve the resource; the next `step` takes it back."""
        self.service.be_silent()
        self.state = OwnPlugin.STARTING
        self._registered_with = None

    def close(self) -> None:
        """Stop serving and remove the socket."""
        self._server.stop()

    def _follow_stream(self, kubelet: Stamp) -> None:
        age = self._clock() - self._registered_at
        if self.service.heard():
            if self.state is not OwnPlugin.SERVING:
                self.state = OwnPlugin.SERVING
                log.info("kubelet listens to the device plugin", **{RESOURCE: self.resource})
            if age > _STABLE:
                self._forget_failures()
        elif self.state is OwnPlugin.SERVING:
            self.state = OwnPlugin.STARTING
            self._registered_with = None
            if age < _STABLE:
                self._retry_at = self._clock() + self._backoff.next()
            log.info("kubelet hung up", **{RESOURCE: self.resource})
        elif age > _STREAM_TIMEOUT:
            self._registered_with = None
            self._fail(kubelet, "kubelet took the registration, but does not ask for the devices")

    def _try(self, kubelet: Stamp) -> None:
        if self.state is OwnPlugin.SERVING:
            self.state = OwnPlugin.STARTING
        self._registered_with = None
        try:
            self._register()
        except (OSError, grpc.RpcError) as error:
            self._fail(kubelet, explain(error))
        else:
            self._registered_with = kubelet
            self._registered_at = self._clock()
            self.registered_ns = time.time_ns()
            log.info("registered with kubelet", **{RESOURCE: self.resource})

    def _register(self) -> None:
        """Listen, dial ourselves, register: kubelet dials us before it answers."""
        if self.service.new_registration() or not self._server.running:
            # Streams of an older registration end first: kubelet would take their end for ours.
            self._server.stop()
            self._server.start()
        with dial(self._server.socket) as channel:
            own = api_pb2_grpc.DevicePluginStub(channel)
            own.GetDevicePluginOptions(api_pb2.Empty(), timeout=_SELF_TIMEOUT)
        request = api_pb2.RegisterRequest(
            version=API_VERSION,
            endpoint=self._server.socket.name,
            resource_name=self.resource,
            options=options(),
        )
        with dial(self._kubelet) as channel:
            kubelet = api_pb2_grpc.RegistrationStub(channel)
            kubelet.Register(request, timeout=_KUBELET_TIMEOUT)

    def _forget_failures(self) -> None:
        self.error = ""
        self._failing_since = None
        self._failing_with = None
        self._retry_at = 0.0
        self._backoff.reset()

    def _fail(self, kubelet: Stamp, error: str) -> None:
        now = self._clock()
        if self._failing_since is None:
            self._failing_since, self._failing_with = now, kubelet
        self._retry_at = now + self._backoff.next()
        refused = now - self._failing_since >= self._patience
        self.state = OwnPlugin.REFUSED if refused else OwnPlugin.STARTING
        if error != self.error:
            log.warning(
                "kubelet does not take the device plugin",
                **{RESOURCE: self.resource, ERROR: error},
            )
        self.error = error
