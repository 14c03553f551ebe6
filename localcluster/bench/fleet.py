"""What is scheduled and on what: simulated nodes with eight GPUs each, and pods that ask for one.

The objects are those that kubelet, the node agent and a user would write; who places the pods is
the business of `systems`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE, INVENTORY, PATH, encode_inventory
from gpus.model import GPU_RESOURCE, DeviceId, Gpu, Link, NodeInventory, Path, PcieLevel, Source
from localcluster.api import ApiClient, Object
from localcluster.cluster import LocalCluster
from localcluster.simulated import NodeTemplate

GPUS = 8
"""GPUs of each node."""

PODS = "/api/v1/namespaces/default/pods"

_CAPACITY: Mapping[str, str] = {"cpu": "128", "memory": "2Ti", "pods": "110"}
_GPU_CAPACITY: Mapping[str, str] = {GPU_RESOURCE: str(GPUS)}
_UUIDS = uuid.UUID("0f3c8a54-5e0b-5d0a-9a6e-0c6f6f1f7d11")
_NVLINKS = 18
_PARALLEL = 8


def node_names(count: int) -> list[str]:
    """Names of that many nodes, all of one length."""
    return [f"node-{number:05d}" for number in range(count)]


def create_nodes(cluster: LocalCluster, names: Sequence[str], *, path: Path | None) -> None:
    """Create ready nodes; with `path` they look as if a node agent served them by that path."""
    if path is None:
        cluster.create_bare_nodes(names, NodeTemplate(capacity={**_CAPACITY, **_GPU_CAPACITY}))
        return
    cluster.api.get("/api/v1")  # so that the threads share one client

    def create(name: str) -> None:
        cluster.create_bare_nodes([name], _served(name, path))

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(create, names))


def create_pods(api: ApiClient, count: int) -> Iterator[None]:
    """Create that many pods with one GPU each; yields after each one."""
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for _ in pool.map(lambda number: api.create(PODS, _pod(number)), range(count)):
            yield


def inventory(node: str) -> NodeInventory:
    """Eight H100 behind NVSwitches, four on each processor, with UUIDs of their own."""
    ids = [DeviceId(f"GPU-{uuid.uuid5(_UUIDS, f'{node}/{index}')}") for index in range(GPUS)]
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


def _served(name: str, path: Path) -> NodeTemplate:
    on_plugin_path = path is Path.PLUGIN
    return NodeTemplate(
        capacity={**_CAPACITY, **(_GPU_CAPACITY if on_plugin_path else {})},
        labels={GPU_LABEL: GPU_LABEL_VALUE},
        annotations={PATH: path, INVENTORY: encode_inventory(inventory(name))},
    )


def _pod(number: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{number:05d}"},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "training",
                    "resources": {"limits": {GPU_RESOURCE: 1, "cpu": "1", "memory": "1Gi"}},
                }
            ]
        },
    }
