"""Nodes, GPUs and holders as rows, from the annotations of nodes and pods. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import gpus.annotations as contract
from gpus.annotations import AnnotationError
from gpus.demand import DemandError, demand_of
from gpus.model import GPU_MEMORY_RESOURCE, DeviceId, Gpu, Health, NodeInventory, Path
from gpus.quantity import written
from kube.objects import Node, Pod

#: Phases in which a pod holds nothing any more (core/v1 PodPhase).
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A pod that holds a device: alone, or `share_bytes` of its memory.

    `pod` is `namespace/name`, or a bare UID when that pod is not known.
    """

    pod: str
    share_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node: its path, driver, and how many of its devices are free, held and unfit.

    Of those held, `shared` are given out in shares.
    """

    node: str
    path: str
    reason: str
    driver: str | None
    devices: int
    held: int
    shared: int
    unfit: int
    #: What keeps the node's annotations from being read; empty when all is well.
    fault: str = ""

    @property
    def free(self) -> int:
        """Devices that a new pod could get; none while the path is changing."""
        serving = self.path in (Path.PLUGIN, Path.ANNOTATION)
        return max(0, self.devices - self.held - self.unfit) if serving else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One device that can be given out, and the pods that hold it: several only by shares."""

    node: str
    index: int
    device: DeviceId
    product: str | None
    memory_bytes: int | None
    health: Health
    health_reason: str
    path: str
    holders: tuple[Holder, ...]

    @property
    def shared(self) -> bool:
        """Tell whether the device is given out in shares of its memory."""
        return any(holder.share_bytes for holder in self.holders)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRow:
    """One pod that asks for GPUs."""

    namespace: str
    name: str
    asks: str
    phase: str
    node: str | None
    devices: tuple[DeviceId, ...]
    #: Bytes that it holds of the memory of its device; 0 when it holds its devices alone.
    share_bytes: int = 0
    #: The annotations that narrow which GPUs it may get, without our prefix.
    wishes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All GPU nodes and GPU pods of a cluster at one moment, sorted by name."""

    nodes: tuple[NodeRow, ...]
    gpus: tuple[GpuRow, ...]
    pods: tuple[PodRow, ...]


def fleet(nodes: Iterable[Node], pods: Iterable[Pod]) -> Fleet:
    """Put together what the agents published and what the extender assigned."""
    by_name = {node.metadata.name: node for node in nodes}
    gpu_pods = sorted(pods, key=lambda pod: (pod.metadata.namespace, pod.metadata.name))
    holders = _holders(by_name.values(), gpu_pods)
    node_rows: list[NodeRow] = []
    gpu_rows: list[GpuRow] = []
    for name in sorted(by_name):
        row, rows = _node(by_name[name], holders)
        if row is not None:
            node_rows.append(row)
            gpu_rows += rows
    held: dict[str, dict[DeviceId, int]] = {}
    for device, found in holders.items():
        for name, share in found.items():
            held.setdefault(name, {})[device] = share
    return Fleet(
        nodes=tuple(node_rows),
        gpus=tuple(gpu_rows),
        pods=tuple(_pod(pod, held.get(_name(pod), {})) for pod in gpu_pods),
    )


#: Who holds which device, and how many bytes of its memory, or 0 where it is held alone.
_Holders = Mapping[DeviceId, Mapping[str, int]]


def _holders(nodes: Iterable[Node], pods: Iterable[Pod]) -> _Holders:
    """Who holds which device: as we assigned it, and else as kubelet was observed to give it."""
    name_of = {pod.metadata.uid: _name(pod) for pod in pods}
    holders: dict[DeviceId, dict[str, int]] = {}
    for pod in pods:
        text = (pod.metadata.annotations or {}).get(contract.ASSIGNED)
        if text is None or not pod.spec.node_name or pod.status.phase in ENDED:
            continue
        try:
            assignment = contract.decode_assigned(text)
        except AnnotationError:
            continue
        for device in assignment.devices():
            holders.setdefault(device, {})[_name(pod)] = assignment.share_bytes
    for node in nodes:
        text = (node.metadata.annotations or {}).get(contract.IN_USE)
        for device, uid in _in_use(text).items():
            holders.setdefault(device, {}).setdefault(name_of.get(uid, uid), 0)
    return holders


def _in_use(text: str | None) -> Mapping[DeviceId, str]:
    try:
        return contract.decode_in_use(text) if text else {}
    except AnnotationError:
        return {}


def _node(node: Node, holders: _Holders) -> tuple[NodeRow | None, list[GpuRow]]:
    found = node.metadata.annotations or {}
    if contract.INVENTORY not in found:
        return None, []
    path = found.get(contract.PATH, "unknown")
    inventory, fault = _inventory(found[contract.INVENTORY])
    rows = [
        GpuRow(
            node=node.metadata.name,
            index=gpu.index,
            device=device,
            product=_product(gpu, device),
            memory_bytes=_memory(gpu, device),
            health=gpu.health,
            health_reason=gpu.health_reason,
            path=path,
            holders=_sorted(holders.get(device, {})),
        )
        for gpu, device, _ in (inventory.devices() if inventory else ())
    ]
    unfit = sum(row.health is not Health.HEALTHY and not row.holders for row in rows)
    row = NodeRow(
        node=node.metadata.name,
        path=path,
        reason=found.get(contract.PATH_REASON, ""),
        driver=inventory.driver if inventory else None,
        devices=len(rows),
        held=sum(bool(row.holders) for row in rows),
        shared=sum(row.shared for row in rows),
        unfit=unfit,
        fault=fault,
    )
    return row, rows


def _sorted(holders: Mapping[str, int]) -> tuple[Holder, ...]:
    return tuple(Holder(pod=pod, share_bytes=holders[pod]) for pod in sorted(holders))


def _inventory(text: str) -> tuple[NodeInventory | None, str]:
    try:
        return contract.decode_inventory(text), ""
    except AnnotationError as error:
        return None, str(error)


def _product(gpu: Gpu, device: DeviceId) -> str | None:
    profiles = {instance.uuid: instance.profile for instance in gpu.mig}
    if gpu.product and device in profiles:
        return f"{gpu.product} MIG {profiles[device]}"
    return gpu.product


def _memory(gpu: Gpu, device: DeviceId) -> int | None:
    return {instance.uuid: instance.memory_bytes for instance in gpu.mig}.get(
        device, gpu.memory_bytes
    )


def _pod(pod: Pod, held: Mapping[DeviceId, int]) -> PodRow:
    annotations = pod.metadata.annotations or {}
    return PodRow(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        asks=_asks(pod),
        phase="Terminating" if pod.metadata.deletion_timestamp else pod.status.phase,
        node=pod.spec.node_name or None,
        devices=tuple(sorted(held)),
        share_bytes=max(held.values(), default=0),
        wishes={
            key.removeprefix(contract.PREFIX): annotations[key]
            for key in contract.WISHES
            if key in annotations
        },
    )


def _asks(pod: Pod) -> str:
    try:
        demand = demand_of(pod)
    except DemandError as error:
        return f"cannot be granted: {error}"
    totals = demand.totals if demand else {}
    return ", ".join(
        f"{written(count) if name == GPU_MEMORY_RESOURCE else count} {name}"
        for name, count in totals.items()
    )


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
