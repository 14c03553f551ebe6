"""Serves one resource on a unix socket, as kubelet's device plugin protocol v1beta1 asks.

Registration with kubelet is `registration`'s matter; what a container gets is `allocation`'s.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

from nodeagent.deviceplugin.allocation import Allocation, Handover, Refused, allocate
from nodeagent.deviceplugin.devices import Device, Offer
from nodeagent.deviceplugin.preference import preferred
from nodeagent.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from service.logs import ERROR, GPUS

HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"
RESOURCE = "resource"

#: Each open ListAndWatch holds one thread; kubelet opens one, and calls the rest one at a time.
_THREADS = 8
#: Bytes in sun_path of unix(7), without the closing zero.
_LONGEST_PATH = 107
#: Seconds that calls under way may take when the server stops.
_GRACE = 1.0

log = structlog.get_logger()


class PluginService:
    """The gRPC methods. Kubelet may call them from several threads at once.

    Every ListAndWatch stream belongs to the registration (a number) during which it was opened:
    only a stream of the present one shows that kubelet listens to us. `on_change` is called when a
    stream begins or ends, and after an allocation.
    """

    def __init__(
        self, offer: Offer, *, handover: Callable[[], Handover], on_change: Callable[[], None]
    ) -> None:
        self._handover = handover
        self._on_change = on_change
        self._changed = threading.Condition()  # guards all below
        self._offer = offer
        self._version = 0
        self._registration = 0
        self._streams: list[_Stream] = []
        self._silent = False
        #: `time.time_ns()` of the last allocation that kubelet asked us for.
        self.last_used_ns = 0

    def update(self, offer: Offer) -> None:
        """Send a new list to kubelet, unless it says the same as the last one."""
        with self._changed:
            same = offer.devices == self._offer.devices
            self._offer = offer
            self._silent = False
            if not same:
                self._version += 1
                self._changed.notify_all()

    def be_silent(self) -> None:
        """Send nothing more, but keep streams open: kubelet listens to another plugin now.

        Closing them would harm: when any stream of a resource ends, kubelet disconnects the
        plugin that is registered for it now (devicemanager plugin/v1beta1 handler.go runClient).
        """
        with self._changed:
            self._silent = True

    def new_registration(self) -> int:
        """Count a registration that is about to be made; returns the streams left of older ones."""
        with self._changed:
            self._registration += 1
            return sum(stream.open for stream in self._streams)

    def hang_up(self) -> None:
        """End every stream."""
        with self._changed:
            for stream in self._streams:
                stream.open = False
            self._changed.notify_all()

    def heard(self) -> bool:
        """Tell whether kubelet holds a stream of the present registration."""
        with self._changed:
            return any(s.open and s.registration == self._registration for s in self._streams)

    def GetDevicePluginOptions(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        """Say which of the optional methods kubelet shall call."""
        return options()

    def ListAndWatch(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802 - gRPC's
        """Send the whole list at once and again on every change, until kubelet hangs up."""
        stream = self._open(context)
        sent = -1
        while (update := self._next(stream, sent)) is not None:
            sent, offer = update
            yield _listing(offer)

    def Allocate(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        """Say what each container needs for the devices that kubelet chose for it."""
        offer, handover = self._current(), self._handover()
        try:
            answers = [
                allocate(asked.devices_ids, offer=offer, handover=handover)
                for asked in request.container_requests
            ]
        except Refused as error:
            log.warning("allocation refused", **{RESOURCE: offer.resource, ERROR: str(error)})
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self.last_used_ns = time.time_ns()
        self._on_change()
        for asked, answer in zip(request.container_requests, answers, strict=True):
            log.info(
                "devices allocated", **{GPUS: list(asked.devices_ids)}, cdi=bool(answer.cdi_devices)
            )
        return api_pb2.AllocateResponse(container_responses=map(_response, answers))

    def GetPreferredAllocation(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        """Choose the best connected of the devices that kubelet has left."""
        offer = self._current()
        try:
            chosen = [
                preferred(
                    asked.available_deviceIDs,
                    must_include=asked.must_include_deviceIDs,
                    size=asked.allocation_size,
                    offer=offer,
                )
                for asked in request.container_requests
            ]
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return api_pb2.PreferredAllocationResponse(
            container_responses=[
                api_pb2.ContainerPreferredAllocationResponse(deviceIDs=devices)
                for devices in chosen
            ]
        )

    def PreStartContainer(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        """Nothing is needed before a start; kubelet is told not to ask."""
        return api_pb2.PreStartContainerResponse()

    def _current(self) -> Offer:
        with self._changed:
            return self._offer

    def _open(self, context: grpc.ServicerContext) -> _Stream:
        with self._changed:
            stream = _Stream(registration=self._registration)
            self._streams = [s for s in self._streams if s.open] + [stream]
        if not context.add_callback(lambda: self._close(stream)):
            self._close(stream)  # it ended before we could ask to be told
        self._on_change()
        return stream

    def _close(self, stream: _Stream) -> None:
        with self._changed:
            stream.open = False
            self._changed.notify_all()
        self._on_change()

    def _next(self, stream: _Stream, sent: int) -> tuple[int, Offer] | None:
        with self._changed:
            self._changed.wait_for(
                lambda: not stream.open or (self._version != sent and not self._silent)
            )
            return (self._version, self._offer) if stream.open else None


class PluginServer:
    """A gRPC server on one socket; `start` and `stop` may alternate."""

    def __init__(self, service: PluginService, socket: Path) -> None:
        self._service = service
        self._server: grpc.Server | None = None
        self._inode = 0
        self.socket = socket

    @property
    def running(self) -> bool:
        """Whether the server runs and its socket is still the file in the folder."""
        return self._server is not None and _inode(self.socket) == self._inode

    def start(self) -> None:
        """Listen; a socket file left by a predecessor is replaced. Raises `OSError`."""
        if len(os.fsencode(self.socket)) > _LONGEST_PATH:
            raise OSError(
                f"{self.socket} is longer than the {_LONGEST_PATH} bytes of a socket path"
            )
        server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="device-plugin"))
        api_pb2_grpc.add_DevicePluginServicer_to_server(self._service, server)
        try:
            server.add_insecure_port(f"unix://{self.socket}")
        except RuntimeError as error:  # grpc's only way to say so; the reason is in its own log
            raise OSError(f"cannot listen on {self.socket}: {error}") from error
        server.start()
        self._server = server
        self._inode = _inode(self.socket)

    def stop(self) -> None:
        """End every call and stream, and remove the socket; harmless when not running."""
        if self._server is not None:
            self._service.hang_up()
            self._server.stop(_GRACE).wait()
            self._server = None


def options() -> Any:
    """Return what we tell kubelet about optional methods."""
    return api_pb2.DevicePluginOptions(
        pre_start_required=False, get_preferred_allocation_available=True
    )


@dataclass(slots=True, eq=False)
class _Stream:
    registration: int
    open: bool = True


def _response(answer: Allocation) -> Any:
    return api_pb2.ContainerAllocateResponse(
        envs=dict(answer.envs),
        cdi_devices=[api_pb2.CDIDevice(name=name) for name in answer.cdi_devices],
        devices=[
            api_pb2.DeviceSpec(
                container_path=node.container_path, host_path=node.host_path, permissions="rw"
            )
            for node in answer.device_nodes
        ],
    )


def _listing(offer: Offer) -> Any:
    return api_pb2.ListAndWatchResponse(devices=_devices(offer.devices))


def _devices(devices: Sequence[Device]) -> list[Any]:
    return [
        api_pb2.Device(
            ID=device.id,
            health=HEALTHY if device.healthy else UNHEALTHY,
            topology=_topology(device.numa_node),
        )
        for device in devices
    ]


def _topology(numa_node: int | None) -> Any:
    if numa_node is None:
        return None
    return api_pb2.TopologyInfo(nodes=[api_pb2.NUMANode(ID=numa_node)])


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
