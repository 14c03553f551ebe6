"""Kubelet's half of the device plugin protocol, as 1.34 behaves, on real gRPC and real sockets.

Also what kubelet gets wrong: when any stream of a resource ends, whichever plugin is registered
for it then is disconnected (pkg/kubelet/cm/devicemanager/plugin/v1beta1/handler.go, runClient).
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from nodeagent.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from nodeagent.podresources.v1 import api_pb2 as pod_pb2
from nodeagent.podresources.v1 import api_pb2_grpc as pod_pb2_grpc

KUBELET_SOCKET = "kubelet.sock"
_LOCAL = (("grpc.use_local_subchannel_pool", 1),)
#: What it answers of pod resources: so many a second, so many at once, of all clients together
#: (pkg/kubelet/apis/podresources/constants.go).
_RATE, _BURST = 100, 10


@dataclass(eq=False)
class Client:
    """Kubelet's connection to one registered plugin."""

    request: Any
    channel: grpc.Channel
    options: Any
    devices: dict[str, Any] = field(default_factory=dict)
    lists: int = 0
    connected: bool = True

    @property
    def plugin(self) -> Any:
        return api_pb2_grpc.DevicePluginStub(self.channel)


@dataclass(frozen=True)
class Held:
    """A device that kubelet has given to a container."""

    resource: str
    device: str
    namespace: str
    pod: str
    uid: str
    container: str = "main"


class FakeKubelet:
    """Serves registration in `folder` and pod resources below `root`; `refuse` makes it rude.

    Every change is announced on `changed`; `until` waits for a condition on it.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        self.root = root or folder.parent
        self.refuse: Callable[[Any], str | None] = lambda _request: None
        #: Whether the streams of plugins are opened at all.
        self.listens = True
        self.changed = threading.Condition()
        self.registrations: list[Any] = []
        self.clients: dict[str, Client] = {}
        self.remembered: dict[str, list[str]] = {}
        self.held: list[Held] = []
        #: Questions about pod resources, and how many of them came too fast.
        self.asked = self.too_fast = 0
        self._tokens, self._counted = float(_BURST), time.monotonic()
        self._servers: list[grpc.Server] = []
        self._channels: list[grpc.Channel] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Empty the folder of sockets, as kubelet does at its start, then serve."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # plugins make and remove theirs meanwhile
                if stat.S_ISSOCK(path.stat().st_mode):
                    path.unlink()
        self.clients = {}
        resources = self.root / "pod-resources"
        resources.mkdir(parents=True, exist_ok=True)
        registration, lister = _server(), _server()
        api_pb2_grpc.add_RegistrationServicer_to_server(self, registration)
        pod_pb2_grpc.add_PodResourcesListerServicer_to_server(self, lister)
        registration.add_insecure_port(f"unix://{self.folder / KUBELET_SOCKET}")
        lister.add_insecure_port(f"unix://{resources / KUBELET_SOCKET}")
        self._servers = [registration, lister]
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        """Die: every connection ends; sockets stay as a killed kubelet leaves them."""
        for channel in self._channels:
            channel.close()
        self._channels = []
        names = [self.folder / KUBELET_SOCKET, self.root / "pod-resources" / KUBELET_SOCKET]
        for server in self._servers:
            server.stop(None).wait()
        self._servers = []
        for name in names:
            if not name.exists():
                os.mknod(name, stat.S_IFSOCK | 0o600)

    def restart(self) -> None:
        """Stop and start; the checkpoint survives."""
        self.stop()
        self.start()

    def until(self, condition: Callable[[], bool], *, timeout: float = 30) -> None:
        """Wait for something to come true; fails the test when it does not."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), "kubelet waited in vain"

    def healthy(self, resource: str) -> set[str]:
        """The devices that would be given out now."""
        client = self.clients.get(resource)
        if client is None or not client.connected:
            return set()
        return {name for name, d in client.devices.items() if d.health == "Healthy"}

    def write_checkpoint(self) -> None:
        """Write what is remembered and held, as kubelet's device manager does."""
        entries = [
            {
                "PodUID": held.uid,
                "ContainerName": held.container,
                "ResourceName": held.resource,
                "DeviceIDs": {"-1": [held.device]},
                "AllocResp": "",
            }
            for held in self.held
        ]
        data = {"PodDeviceEntries": entries or None, "RegisteredDevices": self.remembered}
        path = self.folder / "kubelet_internal_checkpoint"
        path.write_text(json.dumps({"Data": data, "Checksum": 1}))

    def disconnect(self, resource: str) -> None:
        """Drop the connection to whichever plugin is registered."""
        client = self.clients.pop(resource, None)
        if client is not None:
            client.connected = False
            client.channel.close()

    # Registration

    def Register(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        if (complaint := self.refuse(request)) is not None:
            context.abort(grpc.StatusCode.UNKNOWN, complaint)
        socket = self.folder / request.endpoint
        channel = grpc.insecure_channel(f"unix://{socket}", options=_LOCAL)
        self._channels.append(channel)
        plugin = api_pb2_grpc.DevicePluginStub(channel)
        try:
            options = plugin.GetDevicePluginOptions(api_pb2.Empty(), timeout=10)
        except grpc.RpcError as error:
            context.abort(grpc.StatusCode.UNKNOWN, f"failed to dial device plugin: {error}")
        client = Client(request=request, channel=channel, options=options)
        with self.changed:
            self.registrations.append(request)
            self.clients[request.resource_name] = client
            self.changed.notify_all()
        if self.listens:
            threading.Thread(target=self._follow, args=(client,), daemon=True).start()
        return api_pb2.Empty()

    def _follow(self, client: Client) -> None:
        resource = client.request.resource_name
        try:
            for update in client.plugin.ListAndWatch(api_pb2.Empty()):
                with self.changed:
                    client.devices = {device.ID: device for device in update.devices}
                    client.lists += 1
                    self.remembered[resource] = sorted(client.devices)
                    self.write_checkpoint()
                    self.changed.notify_all()
        except (grpc.RpcError, ValueError):
            pass  # ended, or the channel was closed under it
        client.connected = False
        self.disconnect(resource)
        with self.changed:
            self.changed.notify_all()

    # Pod resources

    def List(self, _request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self._count(context)
        pods = [
            pod_pb2.PodResources(
                name=held.pod,
                namespace=held.namespace,
                containers=[
                    pod_pb2.ContainerResources(
                        name=held.container,
                        devices=[
                            pod_pb2.ContainerDevices(
                                resource_name=held.resource, device_ids=[held.device]
                            )
                        ],
                    )
                ],
            )
            for held in self.held
        ]
        return pod_pb2.ListPodResourcesResponse(pod_resources=pods)

    def GetAllocatableResources(self, _request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self._count(context)
        devices = [
            pod_pb2.ContainerDevices(resource_name=name, device_ids=[device])
            for name in list(self.clients)
            for device in self.healthy(name)
        ]
        return pod_pb2.AllocatableResourcesResponse(devices=devices)

    def Get(self, _request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not enabled")

    def _count(self, context: grpc.ServicerContext) -> None:
        """Refuse what comes faster than kubelet answers."""
        with self.changed:
            now = time.monotonic()
            self._tokens = min(_BURST, self._tokens + (now - self._counted) * _RATE)
            self._counted = now
            self.asked += 1
            refused = self._tokens < 1
            self.too_fast += refused
            self._tokens -= not refused
            self.changed.notify_all()
        if refused:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")


def _server() -> grpc.Server:
    return grpc.server(ThreadPoolExecutor(8, thread_name_prefix="fake-kubelet"))
