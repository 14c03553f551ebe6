"""What is scheduled and on what: simulated nodes with eight GPUs each, pods that ask for one, and
pods that hold GPUs already.

The objects are those that kubelet, the node agent, the extender and a user would write; who places
the pods is the business of `systems`. Pure.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

from gpus.annotations import (
    ASSIGNED,
    GPU_LABEL,
    GPU_LABEL_VALUE,
    INVENTORY,
    PATH,
    encode_assigned,
    encode_inventory,
)
from gpus.model import (
    GPU_RESOURCE,
    Assignment,
    DeviceId,
    Gpu,
    Link,
    NodeInventory,
    Path,
    PcieLevel,
    Source,
)
from localcluster.api import Object
from localcluster.simulated import NodeTemplate, bare_node

GPUS = 8
"""GPUs of each node."""

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
BATCH = "bench"
"""Label of pods; its value names the batch."""
FILL = "fill"
"""Batch of the pods that hold GPUs from the start."""

_CAPACITY: Mapping[str, str] = {"cpu": "128", "memory": "2Ti", "pods": "110"}
_GPU_CAPACITY: Mapping[str, str] = {GPU_RESOURCE: str(GPUS)}
_UUIDS = uuid.UUID("0f3c8a54-5e0b-5d0a-9a6e-0c6f6f1f7d11")
_NVLINKS = 18
_CONTAINER = "main"


def node_names(count: int) -> list[str]:
    """Names of that many nodes, all of one length."""
    return [f"node-{number:05d}" for number in range(count)]


def node(name: str, *, path: Path | None) -> Object:
    """A ready node; with `path` it looks as if a node agent served it by that path."""
    if path is None:
        return bare_node(name, NodeTemplate(capacity={**_CAPACITY, **_GPU_CAPACITY}))
    on_plugin_path = path is Path.PLUGIN
    return bare_node(
        name,
        NodeTemplate(
            capacity={**_CAPACITY, **(_GPU_CAPACITY if on_plugin_path else {})},
            labels={GPU_LABEL: GPU_LABEL_VALUE},
            annotations={PATH: path, INVENTORY: encode_inventory(inventory(name))},
        ),
    )


def pod(name: str, *, batch: str, gpus: int = 1) -> Object:
    """A pod as a user writes it."""
    limits = {GPU_RESOURCE: gpus, "cpu": "1", "memory": "1Gi"}
    container = {"name": _CONTAINER, "image": "training", "resources": {"limits": limits}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {BATCH: batch}},
        "spec": {"containers": [container]},
    }


def filling(names: Sequence[str], *, path: Path | None) -> Iterator[Object]:
    """Bound pods that hold all GPUs of nine nodes in ten: of eight a whole node, of the ninth one
    GPU each.

    That makes 8,000 pods on 5,000 nodes.
    """
    for number, name in enumerate(names):
        if number % 10 < 8:
            yield holder(f"fill-{number:05d}", name, range(GPUS), path=path)
        elif number % 10 == 8:
            for index in range(GPUS):
                yield holder(f"fill-{number:05d}-{index}", name, [index], path=path)


def holder(name: str, on_node: str, indices: Sequence[int], *, path: Path | None) -> Object:
    """A bound pod that holds those GPUs of a node."""
    held = pod(name, batch=FILL, gpus=len(indices))
    held["spec"]["nodeName"] = on_node
    if path is None:
        return held
    ids = device_ids(on_node)
    devices = tuple(ids[index] for index in indices)
    containers = {_CONTAINER: devices} if path is Path.ANNOTATION else {}
    held["metadata"]["labels"][GPU_LABEL] = GPU_LABEL_VALUE
    assigned = encode_assigned(Assignment(epoch=1, containers=containers))
    held["metadata"]["annotations"] = {ASSIGNED: assigned}
    return held


def device_ids(node_name: str) -> list[DeviceId]:
    """The UUIDs of a node's GPUs."""
    return [DeviceId(f"GPU-{uuid.uuid5(_UUIDS, f'{node_name}/{index}')}") for index in range(GPUS)]


def inventory(node_name: str) -> NodeInventory:
    """Eight H100 behind NVSwitches, four on each processor, with UUIDs of their own."""
    ids = device_ids(node_name)
    return NodeInventory(
        source=Source.NVML,
        driver="570.172.08",
        cuda="12.8",
        gpus=tuple(_gpu(ids, index) for index in range(GPUS)),
    )


def _gpu(ids: Sequence[DeviceId], index: int) -> Gpu:
    half = GPUS // 2
    return Gpu(
        uuid=ids[index],
        index=index,
        minor=index,
        bdf=f"0000:{0x1B + 8 * index:02x}:00.0",
        product="NVIDIA H100 80GB HBM3",
        memory_bytes=81559 << 20,
        compute_capability=(9, 0),
        architecture="hopper",
        numa_node=index // half,
        links=tuple(
            Link(
                peer=ids[other],
                nvlinks=_NVLINKS,
                pcie=PcieLevel.NUMA_NODE if other // half == index // half else PcieLevel.SYSTEM,
            )
            for other in range(GPUS)
            if other != index
        ),
    )
