"""Nodes, GPUs and holders as rows, from the annotations of nodes and pods. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import gpus.annotations as contract
from cli.rows import Fleet, GpuRow, Holder, NodeRow, PodRow
from gpus.annotations import AnnotationError
from gpus.demand import DemandError, demand_of
from gpus.model import GPU_MEMORY_RESOURCE, DeviceId, Gpu, Health, NodeInventory, Path
from gpus.quantity import written
from kube.objects import Lease, Node, Pod

#: Phases in which a pod holds nothing any more (core/v1 PodPhase).
ENDED = ("Succeeded", "Failed")
#: Seconds without a beat, for a Lease that does not say; what the agent promises.
_PATIENCE = 40
_UNKNOWN = "unknown model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was read of a cluster, and when; `leases` are the agents' heartbeats by node.

    With `held_only` the pods are those that are bound and have not ended, and nothing else than
    their metadata is known.
    """

    nodes: Iterable[Node]
    pods: Iterable[Pod]
    leases: Mapping[str, Lease]
    at: datetime
    held_only: bool = False


def fleet(seen: Seen) -> Fleet:
    """Put together what the agents published and what the extender assigned."""
    by_name = {node.metadata.name: node for node in seen.nodes}
    gpu_pods = sorted(seen.pods, key=lambda pod: (pod.metadata.namespace, pod.metadata.name))
    holders = _holders(by_name.values(), gpu_pods, held_only=seen.held_only)
    node_rows: list[NodeRow] = []
    gpu_rows: list[GpuRow] = []
    for name in sorted(by_name):
        row, rows = _node(by_name[name], holders, _beat(seen.leases.get(name), seen.at))
        if row is not None:
            node_rows.append(row)
            gpu_rows += rows
    held: dict[str, dict[DeviceId, int]] = {}
    for device, found in holders.items():
        for holder, share in found.items():
            held.setdefault(holder, {})[device] = share
    products = {row.device: row.product or _UNKNOWN for row in gpu_rows}
    return Fleet(
        nodes=tuple(node_rows),
        gpus=tuple(gpu_rows),
        pods=()
        if seen.held_only
        else tuple(_pod(pod, held.get(_name(pod), {}), products) for pod in gpu_pods),
    )


#: Who holds which device, and how many bytes of its memory, or 0 where it is held alone.
_Holders = Mapping[DeviceId, Mapping[str, int]]


def _holders(nodes: Iterable[Node], pods: Iterable[Pod], *, held_only: bool) -> _Holders:
    """Who holds which device: as we assigned it, and else as kubelet was observed to give it."""
    name_of: dict[str, str] = {}
    holders: dict[DeviceId, dict[str, int]] = {}
    for pod in pods:
        name = name_of[pod.metadata.uid] = _name(pod)
        text = (pod.metadata.annotations or {}).get(contract.ASSIGNED)
        if text is None or not (held_only or _holds(pod)):
            continue
        try:
            assignment = contract.decode_assigned(text)
        except AnnotationError:
            continue
        for device in assignment.devices():
            holders.setdefault(device, {})[name] = assignment.share_bytes
    for node in nodes:
        text = (node.metadata.annotations or {}).get(contract.IN_USE)
        for device, uid in _in_use(text).items():
            holders.setdefault(device, {}).setdefault(name_of.get(uid, uid), 0)
    return holders


def _holds(pod: Pod) -> bool:
    return bool(pod.spec.node_name) and pod.status.phase not in ENDED


def _in_use(text: str | None) -> Mapping[DeviceId, str]:
    try:
        return contract.decode_in_use(text) if text else {}
    except AnnotationError:
        return {}


def _beat(lease: Lease | None, at: datetime) -> tuple[datetime | None, bool]:
    """When the agent last said that it lives, and whether it has been silent for too long."""
    if lease is None or not lease.spec.renew_time:
        return None, False
    beat = moment(lease.spec.renew_time)
    if beat is None:
        return None, False
    patience = timedelta(seconds=lease.spec.lease_duration_seconds or _PATIENCE)
    return beat, at - beat > patience


def _node(
    node: Node, holders: _Holders, beat: tuple[datetime | None, bool]
) -> tuple[NodeRow | None, list[GpuRow]]:
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
    held = sum(bool(row.holders) for row in rows)
    row = NodeRow(
        node=node.metadata.name,
        path=path,
        reason=found.get(contract.PATH_REASON, ""),
        driver=inventory.driver if inventory else None,
        cuda=inventory.cuda if inventory else None,
        devices=len(rows),
        # Nothing is given out while the path is changing.
        free=len(rows) - held - unfit if path in (Path.PLUGIN, Path.ANNOTATION) else 0,
        held=held,
        shared=sum(row.shared for row in rows),
        unfit=unfit,
        products=Counter(row.product or _UNKNOWN for row in rows),
        ailing=_ailing(inventory),
        heartbeat=beat[0],
        silent=beat[1],
        fault=fault,
    )
    return row, rows


def _ailing(inventory: NodeInventory | None) -> tuple[str, ...]:
    return tuple(
        f"GPU {gpu.index} {gpu.health}" + (f": {gpu.health_reason}" if gpu.health_reason else "")
        for gpu in (inventory.gpus if inventory else ())
        if gpu.health is not Health.HEALTHY
    )


def _sorted(holders: Mapping[str, int]) -> tuple[Holder, ...]:
    return tuple(Holder(pod=pod, share_bytes=holders[pod]) for pod in sorted(holders))


# Of thousands of nodes that are watched, few change; one takes 0.15 ms to read.
@lru_cache(maxsize=16_384)
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


def _pod(pod: Pod, held: Mapping[DeviceId, int], products: Mapping[DeviceId, str]) -> PodRow:
    annotations = pod.metadata.annotations or {}
    return PodRow(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        asks=_asks(pod),
        phase="Terminating" if pod.metadata.deletion_timestamp else pod.status.phase,
        node=pod.spec.node_name or None,
        devices=tuple(sorted(held)),
        products=Counter(products[device] for device in sorted(held) if device in products),
        share_bytes=max(held.values(), default=0),
        wishes={
            key.removeprefix(contract.PREFIX): annotations[key]
            for key in contract.WISHES
            if key in annotations
        },
        created=moment(pod.metadata.creation_timestamp),
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


def moment(text: str | None) -> datetime | None:
    """Read metav1.Time or metav1.MicroTime; None for anything else."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo is not None else None
