"""Asks kubelet what it has to give out and who holds what, over its pod resources socket (v1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from gpus.model import DeviceId, ResourceName
from nodeagent.podresources.v1 import api_pb2, api_pb2_grpc
from nodeagent.unix_grpc import dial, explain

#: Below kubelet's root folder; unlike the plugin folder it follows `--root-dir`.
SOCKET = "pod-resources/kubelet.sock"
_TIMEOUT = 3.0


class PodResourcesError(Exception):
    """Kubelet does not answer on its pod resources socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The container to which kubelet gave a device."""

    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Kubelet's view at one moment, of all resources of device plugins.

    `healthy` is what kubelet would give out or has given out; a plugin that is gone has none.
    `held` includes devices of plugins that are gone. Devices of plain init containers are not in
    it: kubelet does not list them.
    """

    healthy: Mapping[ResourceName, frozenset[DeviceId]]
    held: Mapping[ResourceName, Mapping[DeviceId, Holder]]


class PodResources:
    """Kubelet's pod resources API of this node."""

    def __init__(self, kubelet_folder: Path) -> None:
        self.socket = kubelet_folder / SOCKET

    def read(self) -> Resources:
        """Return kubelet's view now; raises `PodResourcesError`.

        Listing also makes kubelet forget the devices of pods that ended
        (apis/podresources/server_v1.go calls UpdateAllocatedDevices).
        """
        with dial(self.socket) as channel:
            lister = api_pb2_grpc.PodResourcesListerStub(channel)
            try:
                listed = lister.List(api_pb2.ListPodResourcesRequest(), timeout=_TIMEOUT)
                given_out = lister.GetAllocatableResources(
                    api_pb2.AllocatableResourcesRequest(), timeout=_TIMEOUT
                )
            except grpc.RpcError as error:
                raise PodResourcesError(f"{self.socket}: {explain(error)}") from error
        held: dict[ResourceName, dict[DeviceId, Holder]] = {}
        for pod in listed.pod_resources:
            for container in pod.containers:
                holder = Holder(namespace=pod.namespace, pod=pod.name, container=container.name)
                for devices in container.devices:
                    of_resource = held.setdefault(ResourceName(devices.resource_name), {})
                    of_resource.update({DeviceId(d): holder for d in devices.device_ids})
        healthy: dict[ResourceName, frozenset[DeviceId]] = {}
        for devices in given_out.devices:  # one entry a NUMA node
            name = ResourceName(devices.resource_name)
            healthy[name] = healthy.get(name, frozenset()) | {
                DeviceId(device) for device in devices.device_ids
            }
        return Resources(healthy=healthy, held=held)
