"""Nodes, GPUs and holders as rows, from the annotations of nodes and pods. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import gpus.annotations as contract
from gpus.annotations import AnnotationError
from gpus.demand import DemandError, demand_of
from gpus.model import DeviceId, Gpu, Health, NodeInventory, Path
from kube.objects import Node, Pod

#: Phases in which a pod holds nothing any more (core/v1 PodPhase).
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node: its path, driver, and how many of its devices are free, held and unfit."""

    node: str
    path: str
    reason: str
    driver: str | None
    devices: int
    held: int
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
    """One device that can be given out, and the pod that holds it."""

    node: str
    index: int
    device: DeviceId
    product: str | None
    memory_bytes: int | None
    health: Health
    health_reason: str
    path: str
    #: `namespace/name` of the holder; a bare UID when that pod is not known.
    holder: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRow:
    """One pod that asks for GPUs."""

    namespace: str
    name: str
    asks: str
    phase: str
    node: str | None
    devices: tuple[DeviceId, ...]


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
    held: dict[str, list[DeviceId]] = {}
    for device, holder in holders.items():
        held.setdefault(holder, []).append(device)
    return Fleet(
        nodes=tuple(node_rows),
        gpus=tuple(gpu_rows),
        pods=tuple(_pod(pod, held) for pod in gpu_pods),
    )


def _holders(nodes: Iterable[Node], pods: Iterable[Pod]) -> dict[DeviceId, str]:
    """Who holds which device: as kubelet was observed to give it, and as we assigned it."""
    name_of = {pod.metadata.uid: _name(pod) for pod in pods}
    holders: dict[DeviceId, str] = {}
    for node in nodes:
        text = (node.metadata.annotations or {}).get(contract.IN_USE)
        for device, uid in _in_use(text).items():
            holders[device] = name_of.get(uid, uid)
    for pod in pods:
        text = (pod.metadata.annotations or {}).get(contract.ASSIGNED)
        if text is None or not pod.spec.node_name or pod.status.phase in ENDED:
            continue
        try:
            assignment = contract.decode_assigned(text)
        except AnnotationError:
            continue
        holders.update(dict.fromkeys(assignment.devices(), _name(pod)))
    return holders


def _in_use(text: str | None) -> Mapping[DeviceId, str]:
    try:
        return contract.decode_in_use(text) if text else {}
    except AnnotationError:
        return {}


def _node(node: Node, holders: Mapping[DeviceId, str]) -> tuple[NodeRow | None, list[GpuRow]]:
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
            holder=holders.get(device),
        )
        for gpu, device, _ in (inventory.devices() if inventory else ())
    ]
    unfit = sum(row.health is not Health.HEALTHY and row.holder is None for row in rows)
    row = NodeRow(
        node=node.metadata.name,
        path=path,
        reason=found.get(contract.PATH_REASON, ""),
        driver=inventory.driver if inventory else None,
        devices=len(rows),
        held=sum(row.holder is not None for row in rows),
        unfit=unfit,
        fault=fault,
    )
    return row, rows


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


def _pod(pod: Pod, held: Mapping[str, list[DeviceId]]) -> PodRow:
    return PodRow(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        asks=_asks(pod),
        phase="Terminating" if pod.metadata.deletion_timestamp else pod.status.phase,
        node=pod.spec.node_name or None,
        devices=tuple(sorted(held.get(_name(pod), ()))),
    )


def _asks(pod: Pod) -> str:
    try:
        demand = demand_of(pod)
    except DemandError as error:
        return f"unreadable: {error}"
    totals = demand.totals if demand else {}
    return ", ".join(f"{count} {name}" for name, count in totals.items())


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
