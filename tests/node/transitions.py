"""What a Node told while its path changed, read as any client reads it: watches, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpus.annotations import IN_USE, PATH_CONDITION, decode_in_use, encode_in_use
from kube.client import Client
from kube.connection import connect
from kube.objects import Node, ObjectMeta, Struct
from kube.reflector import Reflector
from kube.watch import Event, EventKind
from nodeagent.podresources.v1 import api_pb2, api_pb2_grpc
from nodeagent.unix_grpc import dial
from tests.node.gpu_node import GPU, NODE, GpuNode

#: Seconds within which capacity is true again, promised for a kubelet that reports at once; this
#: node's reports every 2 s, an ordinary one every 10 s.
PROMISED = 15.0
_NOBODY = encode_in_use({})
_EVENTS = "/api/v1/namespaces/default/events"
_OF_PATH = f"involvedObject.name={NODE},reason=GPUPathChanged"


class NodeEvent(Struct, frozen=True):
    """An Event about the Node."""

    metadata: ObjectMeta = ObjectMeta()
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What was told during one transition: the condition's reasons one after the other."""

    causes: tuple[str, ...]
    events: tuple[str, ...]
    #: The devices of each `in-use` that the Node showed.
    in_use: tuple[frozenset[str], ...]
    #: Seconds until kubelet offered the right number of GPUs, and the Node told the right cause.
    seconds: float


class Transitions:
    """Watches one Node and its Events; `during` tells what one change made of them."""

    def __init__(self, node: GpuNode) -> None:
        self._node = node
        self._changed = threading.Condition()  # guards all below
        self._older = {
            each["metadata"]["uid"]
            for each in node.cluster.api.get(_EVENTS, fieldSelector=_OF_PATH)["items"]
        }
        self._causes: list[str] = []
        self._events: dict[str, NodeEvent] = {}
        self._in_use: list[frozenset[str]] = []
        self._offered: int | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow the Node while the block runs."""
        client = Client(connect(str(self._node.cluster.admin_kubeconfig)))
        nodes = Reflector(
            client, "/api/v1/nodes", type=Node, on_event=self._on_node,
            params={"fieldSelector": f"metadata.name={NODE}"},
        )  # fmt: skip
        events = Reflector(
            client, _EVENTS, type=NodeEvent, on_event=self._on_event,
            params={"fieldSelector": _OF_PATH},
        )  # fmt: skip
        stop = threading.Event()
        followers = (nodes, events)
        threads = [threading.Thread(target=each.run, args=(stop,)) for each in followers]
        for thread in threads:
            thread.start()
        try:
            assert all(each.synced.wait(30) for each in followers)
            yield
        finally:
            stop.set()
            for each in followers:
                each.close()
            for thread in threads:
                thread.join(15)
                assert not thread.is_alive()
            client.close()

    def during(self, change: Callable[[], object], *, cause: str, offered: int | None) -> Told:
        """Make a change and wait until the Node tells `cause` and kubelet offers so many GPUs."""
        with self._changed:
            first_cause, known = len(self._causes), set(self._events)
            first_sight = len(self._in_use)
        change()
        began = time.monotonic()
        with self._changed:
            assert self._changed.wait_for(
                lambda: (
                    self._causes[-1:] == [cause]
                    and len(self._causes) > first_cause
                    and self._offered == offered
                    and set(self._events) - known
                ),
                90,
            ), (self._causes[first_cause:], self._offered, self._messages(known))
            seconds = time.monotonic() - began
            return Told(
                causes=tuple(self._causes[first_cause:]),
                events=self._messages(known),
                in_use=tuple(self._in_use[first_sight:]),
                seconds=seconds,
            )

    def events_in_all(self) -> int:
        """Count the Events since the beginning, as the API server has them, and repetitions."""
        listed = self._node.cluster.api.get(_EVENTS, fieldSelector=_OF_PATH)["items"]
        return sum(each["count"] for each in listed if each["metadata"]["uid"] not in self._older)

    def _messages(self, known: set[str]) -> tuple[str, ...]:
        return tuple(e.message for name, e in self._events.items() if name not in known)

    def _on_node(self, event: Event[Node]) -> None:
        status = event.object.status
        causes = [c.reason for c in status.conditions or () if c.type == PATH_CONDITION]
        offered = (status.allocatable or {}).get(GPU)
        with self._changed:
            self._causes += [cause for cause in causes if self._causes[-1:] != [cause]]
            self._offered = None if offered is None else int(offered)
            in_use = (event.object.metadata.annotations or {}).get(IN_USE, _NOBODY)
            self._in_use.append(frozenset(decode_in_use(in_use)))
            self._changed.notify_all()

    def _on_event(self, event: Event[NodeEvent]) -> None:
        if event.kind is not EventKind.DELETED:
            with self._changed:
                self._events[f"{event.object.metadata.name}/{event.object.count}"] = event.object
                self._changed.notify_all()


def held_by(node: GpuNode) -> dict[str, str]:
    """Device to pod, as kubelet itself tells; fails where a device has two holders."""
    socket = node.cluster.node.pod_resources_socket
    by_device: dict[str, str] = {}
    with dial(socket) as channel:
        listed = api_pb2_grpc.PodResourcesListerStub(channel).List(
            api_pb2.ListPodResourcesRequest(), timeout=10
        )
    for pod in listed.pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                for device in devices.device_ids if devices.resource_name == GPU else ():
                    assert device not in by_device, (device, pod.name, by_device[device])
                    by_device[device] = pod.name
    return by_device


def numa_hints(node: GpuNode) -> dict[str, list[int]]:
    """Device to NUMA nodes, as kubelet learnt them."""
    with dial(node.cluster.node.pod_resources_socket) as channel:
        known = api_pb2_grpc.PodResourcesListerStub(channel).GetAllocatableResources(
            api_pb2.AllocatableResourcesRequest(), timeout=10
        )
    return {
        device: [each.ID for each in devices.topology.nodes]
        for devices in known.devices
        for device in devices.device_ids
    }
