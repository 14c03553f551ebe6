"""Pods and nodes for tests, one line each: `pod("a").wants(gpus=2).on("n1").build()`.

Builders are values: every method returns a new one. `raw()` gives the JSON that the API server
would send, `build()` what our code reads from it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import msgspec

from gpus import annotations as contract
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    GPU_RESOURCE,
    Assignment,
    DeviceId,
    Gpu,
    Health,
    Link,
    MigInstance,
    NodeInventory,
    Path,
    PcieLevel,
    PodUid,
    Source,
)
from kube.objects import Node, Pod

#: A name that the webhook could have given.
_LIST = contract.DEVICES_CONFIG_MAP_PREFIX


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` laid over it, maps by key and all else whole."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]  # checked
    return result


@dataclass(frozen=True)
class PodBuilder:
    """A pod as the webhook leaves it: labelled, with a device list of its own."""

    document: Mapping[str, Any]

    def _with(self, **change: Any) -> Self:
        return replace(self, document=merged(self.document, change))

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.document["metadata"]["name"])

    @property
    def node(self) -> str:
        """The node that it is bound to, or nothing."""
        return str(self.document["spec"].get("nodeName", ""))

    def wants(self, *, gpus: int = 0, container: str = "main", **resources: int | str) -> Self:
        """Let an app container ask for devices; `mig_1g_5gb=2` asks for nvidia.com/mig-1g.5gb.

        `memory="8Gi"` asks for a share.
        """
        asked = container_asking(container, gpus=gpus, **resources)
        others = [c for c in self.document["spec"]["containers"] if c["name"] != container]
        return self._with(spec={"containers": [*others, asked]})

    def init(self, name: str, *, gpus: int = 0, **resources: int | str) -> Self:
        """Add an init container."""
        return self._started_before(container_asking(name, gpus=gpus, **resources))

    def sidecar(self, name: str, *, gpus: int = 0, **resources: int | str) -> Self:
        """Add an init container that runs on (KEP-753)."""
        asked = container_asking(name, gpus=gpus, **resources)
        return self._started_before({**asked, "restartPolicy": "Always"})

    def _started_before(self, container: Mapping[str, Any]) -> Self:
        before = self.document["spec"].get("initContainers", [])
        return self._with(spec={"initContainers": [*before, container]})

    def on(self, node: str) -> Self:
        """Bind the pod."""
        return self._with(spec={"nodeName": node}, status={"phase": "Running"})

    def wishing(self, **wishes: str) -> Self:
        """Narrow which GPUs it may get; `min_memory="40Gi"` sets gpudetour.io/min-memory."""
        builder = self
        for key, value in wishes.items():
            builder = builder.annotated(contract.PREFIX + key.replace("_", "-"), value)
        return builder

    def assigned(
        self, containers: Mapping[str, Sequence[str]], *, epoch: int = 1, share: int = 0
    ) -> Self:
        """Let the pod hold devices, as the extender writes it; `share` is in bytes."""
        given = {name: tuple(map(DeviceId, ids)) for name, ids in containers.items()}
        assignment = Assignment(epoch=epoch, containers=given, share_bytes=share)
        return self.annotated(contract.ASSIGNED, contract.encode_assigned(assignment))

    def annotated(self, key: str, value: str) -> Self:
        """Set one annotation."""
        return self._with(metadata={"annotations": {key: value}})

    def devices_from(self, name: str | None) -> Self:
        """Name another ConfigMap, or none: a pod older than the install."""
        document = copy.deepcopy(dict(self.document))
        document["metadata"]["annotations"].pop(contract.DEVICES_FROM, None)
        builder = replace(self, document=document)
        return builder if name is None else builder.annotated(contract.DEVICES_FROM, name)

    def uid(self, uid: str) -> Self:
        """Make it another pod of the same name."""
        return self._with(metadata={"uid": uid})

    def created(self, timestamp: str) -> Self:
        """Set the time of creation (RFC 3339)."""
        return self._with(metadata={"creationTimestamp": timestamp})

    def of_priority(self, priority: int) -> Self:
        """Set how important it is, as admission does from its PriorityClass."""
        return self._with(spec={"priority": priority})

    def phase(self, phase: str) -> Self:
        """Set status.phase: Pending, Running, Succeeded, Failed."""
        return self._with(status={"phase": phase})

    def deleting(self) -> Self:
        """Mark it as being deleted."""
        return self._with(metadata={"deletionTimestamp": "2026-01-02T00:00:00Z"})

    def raw(self) -> dict[str, Any]:
        """Return the JSON document."""
        return copy.deepcopy(dict(self.document))

    def build(self) -> Pod:
        """Return what our code reads."""
        return msgspec.convert(self.document, Pod)


def container_asking(name: str, *, gpus: int = 0, **resources: int | str) -> dict[str, Any]:
    """Return a container; its requests repeat its limits, as the API server makes it."""
    asked = {
        f"nvidia.com/{key.replace('_', '-', 1).replace('_', '.')}": str(count)
        for key, count in resources.items()
        if key != "memory"
    }
    if gpus:
        asked[GPU_RESOURCE] = str(gpus)
    if memory := resources.get("memory"):
        asked[GPU_MEMORY_RESOURCE] = str(memory)
    both = {"limits": asked, "requests": asked} if asked else {}
    return {"name": name, "image": "example.org/image", "resources": both}


def pod(name: str, namespace: str = "default") -> PodBuilder:
    """Return a pending pod that asks for nothing yet."""
    suffix = "".join(c for c in name if c.isalnum())[-20:].rjust(20, "0").lower()
    return PodBuilder(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{name}",
                "resourceVersion": "1",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {contract.GPU_LABEL: contract.GPU_LABEL_VALUE},
                "annotations": {contract.DEVICES_FROM: f"{_LIST}{suffix}"},
            },
            "spec": {
                "containers": [container_asking("main")],
                "schedulerName": "default-scheduler",
            },
            "status": {"phase": "Pending"},
        }
    )


@dataclass(frozen=True)
class NodeBuilder:
    """A node with GPUs, or without; on no path until it is told."""

    name: str
    gpus: tuple[Gpu, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, str] = field(default_factory=dict)

    def with_gpus(
        self, count: int, product: str = "NVIDIA H100", *, nvlink_pairs: bool = False
    ) -> Self:
        """Give it cards `GPU-<node>-0` and so on, half of them on each of two NUMA nodes."""
        cards = [
            Gpu(
                uuid=gpu_id(self.name, i),
                index=i,
                product=product,
                numa_node=i * 2 // count,
                links=_links(self.name, i, count, nvlink_pairs=nvlink_pairs),
            )
            for i in range(count)
        ]
        return replace(self, gpus=tuple(cards))

    def with_mig(self, profiles: Sequence[str]) -> Self:
        """Add a card that is cut into instances `MIG-<node>-<card>-0` and so on."""
        index = len(self.gpus)
        card = Gpu(
            uuid=gpu_id(self.name, index),
            index=index,
            mig_enabled=True,
            mig=tuple(
                MigInstance(uuid=DeviceId(f"MIG-{self.name}-{index}-{i}"), profile=profile)
                for i, profile in enumerate(profiles)
            ),
        )
        return replace(self, gpus=(*self.gpus, card))

    def health(self, health: Health, *indexes: int) -> Self:
        """Set the health of some cards."""
        cards = [replace(gpu, health=health) if gpu.index in indexes else gpu for gpu in self.gpus]
        return replace(self, gpus=tuple(cards))

    def cards(self, *indexes: int, **facts: Any) -> Self:
        """Change facts of some cards, or of all: `cards(0, memory_bytes=80 << 30)`."""
        cards = [
            replace(gpu, **facts) if not indexes or gpu.index in indexes else gpu
            for gpu in self.gpus
        ]
        return replace(self, gpus=tuple(cards))

    def inventory(self) -> Self:
        """Let its agent publish the cards; call it after they are complete."""
        inventory = NodeInventory(source=Source.NVML, gpus=self.gpus)
        return self.annotated(contract.INVENTORY, contract.encode_inventory(inventory))

    def annotation_path(self) -> Self:
        """Let its inventory be its capacity; call it after the cards are complete."""
        return self.inventory().path(Path.ANNOTATION)

    def plugin_path(self, *, healthy: int | None = None, **counts: int) -> Self:
        """Let kubelet advertise its cards, or other `counts` (`gpu`, `mig_1g_5gb`)."""
        if not counts:
            counts = {"gpu": len(self.gpus)}
        total = {
            f"nvidia.com/{key.replace('_', '-', 1).replace('_', '.')}": str(count)
            for key, count in counts.items()
        }
        able = total if healthy is None else {**total, GPU_RESOURCE: str(healthy)}
        return replace(self.path(Path.PLUGIN), capacity=total, allocatable=able)

    def path(self, path: str) -> Self:
        """Set the path alone."""
        return self.annotated(contract.PATH, str(path))

    def annotated(self, key: str, value: str) -> Self:
        """Set one annotation."""
        return replace(self, annotations={**self.annotations, key: value})

    def in_use(self, holders: Mapping[str, str]) -> Self:
        """Let kubelet be seen to have given devices to pods (by UID)."""
        found = {DeviceId(device): PodUid(uid) for device, uid in holders.items()}
        return self.annotated(contract.IN_USE, contract.encode_in_use(found))

    def raw(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "uid": f"uid-{self.name}",
                "resourceVersion": "1",
                "annotations": dict(self.annotations),
            },
            "status": {"capacity": dict(self.capacity), "allocatable": dict(self.allocatable)},
        }

    def build(self) -> Node:
        """Return what our code reads."""
        return msgspec.convert(self.raw(), Node)


def node(name: str) -> NodeBuilder:
    """Return a node without GPUs, of which no agent has spoken."""
    return NodeBuilder(name)


def gpu_id(node_name: str, index: int) -> DeviceId:
    """Return the UUID of a built node's card."""
    return DeviceId(f"GPU-{node_name}-{index}")


def _links(name: str, index: int, count: int, *, nvlink_pairs: bool) -> tuple[Link, ...]:
    if not nvlink_pairs:
        return ()
    return tuple(
        Link(
            peer=gpu_id(name, other),
            nvlinks=4 if other == index ^ 1 else 0,
            pcie=PcieLevel.SINGLE_SWITCH if other == index ^ 1 else PcieLevel.SYSTEM,
        )
        for other in range(count)
        if other != index
    )
