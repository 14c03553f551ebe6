"""What a Node and a Pod object say about GPUs, read once per change and kept as values.

Garbage is not an error here but a fact: a node whose inventory cannot be read has nothing to give,
and a pod whose assignment cannot be read makes its node's GPUs unknown, never free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

import gpus.annotations as contract
from extender.placement.reasons import Reason
from gpus.annotations import AnnotationError
from gpus.demand import Demand, DemandError, demand_of, is_gpu_resource
from gpus.model import (
    Assignment,
    DeviceId,
    Health,
    NodeInventory,
    NodeName,
    Path,
    PodUid,
    ResourceName,
)
from gpus.quantity import QuantityError, whole
from kube.objects import Node, Pod, Quantity

#: `namespace/name`: what a watch names a pod by; the UID tells which pod of that name it is.
PodKey = NewType("PodKey", str)
#: `namespace/name` of the ConfigMap that hands a pod its devices.
ClaimKey = NewType("ClaimKey", str)

Counts = Mapping[ResourceName, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a Node says. `total` counts all its devices by resource, `healthy` those to give out.

    `source` holds the texts that all else was read from; equal sources are equal facts.
    """

    source: tuple[object, ...]
    path: Path | None = field(default=None, compare=False)
    #: Why nothing here can be given out, whoever holds what.
    blocked: Reason | None = field(default=None, compare=False)
    total: Counts = field(default_factory=dict, compare=False)
    healthy: Counts = field(default_factory=dict, compare=False)
    #: Only on the annotation path; on the other, kubelet chooses the devices.
    inventory: NodeInventory | None = field(default=None, compare=False)
    in_use: Mapping[DeviceId, PodUid] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What a Pod says. `fault` tells why its demand cannot be understood, and is else empty.

    `assignment` is None when the pod is not bound: until then anybody may have written it.
    """

    key: PodKey
    uid: PodUid
    node: NodeName | None
    ended: bool
    created: str
    claim: ClaimKey | None
    demand: Demand | None = field(compare=False)
    fault: str = ""
    assigned: str | None = None
    assignment: Assignment | None = field(default=None, compare=False)
    priority: int = 0
    #: The pod waits for others to end, whatever its priority (preemptionPolicy: Never).
    patient: bool = False
    #: It is being deleted; it holds its devices until it is gone.
    leaving: bool = False

    @property
    def holds(self) -> bool:
        """Tell whether the pod holds devices now; one that is only being deleted still does."""
        return self.node is not None and not self.ended

    @property
    def covered(self) -> bool:
        """Tell whether the assignment names exactly as many devices as each container asks for."""
        if self.demand is None:
            return not self.fault
        if self.assignment is None:
            return False
        asked = {c.name: sum(c.counts.values()) for c in self.demand.containers}
        given = {name: len(ids) for name, ids in self.assignment.containers.items()}
        return asked == given


def read_node(node: Node, *, previous: NodeFacts | None = None) -> NodeFacts:
    """Read a Node; returns `previous` itself when nothing that matters changed."""
    texts = node.metadata.annotations or {}
    capacity, allocatable = _gpus(node.status.capacity), _gpus(node.status.allocatable)
    source = (
        texts.get(contract.PATH),
        texts.get(contract.INVENTORY),
        texts.get(contract.IN_USE),
        capacity,
        allocatable,
    )
    if previous is not None and previous.source == source:
        return previous
    if source[0] is None:
        return NodeFacts(source=source, blocked=_silent(capacity))
    try:
        path = Path(texts[contract.PATH])
        if path is Path.PLUGIN:
            return NodeFacts(
                source=source,
                path=path,
                total=_whole(capacity),
                healthy=_whole(allocatable),
                in_use=_in_use(texts),
            )
        if path is Path.ANNOTATION:
            return _on_annotation_path(source, texts)
    except (AnnotationError, QuantityError, ValueError):
        return NodeFacts(source=source, blocked=Reason.UNREADABLE)
    return NodeFacts(source=source, path=path, blocked=Reason.PATH_CHANGING)


def read_pod(pod: Pod, *, previous: PodFacts | None = None) -> PodFacts:
    """Read a Pod; what cannot change in a pod's life is taken over from `previous`."""
    meta, uid = pod.metadata, PodUid(pod.metadata.uid)
    texts = meta.annotations or {}
    if previous is not None and previous.uid == uid:
        demand, fault = previous.demand, previous.fault
    else:
        demand, fault = _demand(pod)
    bound = NodeName(pod.spec.node_name) if pod.spec.node_name else None
    assigned = texts.get(contract.ASSIGNED) if bound else None
    if previous is not None and assigned is not None and previous.assigned == assigned:
        assignment = previous.assignment
    else:
        assignment = _assignment(assigned)
    name = texts.get(contract.DEVICES_FROM)
    return PodFacts(
        key=PodKey(f"{meta.namespace}/{meta.name}"),
        uid=uid,
        node=bound,
        # core/v1 PodPhase: in both, all containers have ended and will not start again.
        ended=pod.status.phase in ("Succeeded", "Failed"),
        created=meta.creation_timestamp or "",
        claim=ClaimKey(f"{meta.namespace}/{name}") if name else None,
        demand=demand,
        fault=fault,
        assigned=assigned,
        assignment=assignment,
        priority=pod.spec.priority or 0,
        patient=pod.spec.preemption_policy == "Never",
        leaving=meta.deletion_timestamp is not None,
    )


def _demand(pod: Pod) -> tuple[Demand | None, str]:
    try:
        return demand_of(pod), ""
    except DemandError as error:
        return None, str(error)


def _assignment(text: str | None) -> Assignment | None:
    if text is None:
        return None
    try:
        return contract.decode_assigned(text)
    except AnnotationError:
        return None


def _on_annotation_path(source: tuple[object, ...], texts: Mapping[str, str]) -> NodeFacts:
    if contract.INVENTORY not in texts:
        return NodeFacts(source=source, path=Path.ANNOTATION, blocked=Reason.UNREADABLE)
    inventory = contract.decode_inventory(texts[contract.INVENTORY])
    total: Counter[ResourceName] = Counter()
    healthy: Counter[ResourceName] = Counter()
    for gpu, _, resource in inventory.devices():
        total[resource] += 1
        healthy[resource] += gpu.health is Health.HEALTHY
    return NodeFacts(
        source=source,
        path=Path.ANNOTATION,
        total=total,
        healthy=healthy,
        inventory=inventory,
        in_use=_in_use(texts),
    )


def _silent(capacity: Mapping[str, Quantity]) -> Reason:
    """Why a node has nothing to give on which no agent has spoken (yet)."""
    return Reason.NODE_UNKNOWN if capacity else Reason.NO_GPU


def _in_use(texts: Mapping[str, str]) -> Mapping[DeviceId, PodUid]:
    text = texts.get(contract.IN_USE)
    return contract.decode_in_use(text) if text is not None else {}


def _gpus(resources: Mapping[str, Quantity] | None) -> dict[str, Quantity]:
    return {name: count for name, count in (resources or {}).items() if is_gpu_resource(name)}


def _whole(resources: Mapping[str, Quantity]) -> dict[ResourceName, int]:
    return {ResourceName(name): whole(quantity) for name, quantity in resources.items()}
