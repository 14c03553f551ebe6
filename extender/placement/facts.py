"""What a Node and a Pod object say about GPUs, as values; a Pod is read here, a Node in `nodes`.

Garbage is not an error here but a fact: a pod whose assignment cannot be read makes its node's GPUs
unknown, never free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

import gpus.annotations as contract
from extender.placement.devices import Devices
from extender.placement.layout import Counts
from extender.placement.reasons import Reason
from gpus.annotations import AnnotationError
from gpus.demand import Demand, DemandError, demand_of
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    Assignment,
    DeviceId,
    NodeName,
    Path,
    PodUid,
)
from kube.objects import Pod

#: `namespace/name`: what a watch names a pod by; the UID tells which pod of that name it is.
PodKey = NewType("PodKey", str)
#: `namespace/name` of the ConfigMap that hands a pod its devices.
ClaimKey = NewType("ClaimKey", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a Node says. `total` counts all its devices by resource, `healthy` those to give out.

    `source` is a digest of the texts that all else was read from; equal sources are equal facts.
    """

    source: bytes
    path: Path | None = field(default=None, compare=False)
    #: Why nothing here can be given out, whoever holds what.
    blocked: Reason | None = field(default=None, compare=False)
    total: Counts = field(default_factory=dict, compare=False)
    healthy: Counts = field(default_factory=dict, compare=False)
    #: On the annotation path it is there; on the plugin path where the inventory can be read.
    devices: Devices | None = field(default=None, compare=False)
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
    demand: Demand | None
    fault: str = ""
    #: Why it cannot be said which devices the assignment gives to the pod; empty where it can.
    unclear: str = field(default="", compare=False)
    assigned: str | None = None
    assignment: Assignment | None = field(default=None, compare=False)
    priority: int = 0
    #: The pod waits for others to end, whatever its priority (preemptionPolicy: Never).
    patient: bool = False
    #: It is being deleted; it holds its devices until it is gone.
    leaving: bool = False

    @property
    def waits(self) -> bool:
        """Tell whether the pod may still be placed: it is not bound, and has not ended."""
        return self.node is None and not self.ended

    @property
    def listed(self) -> bool:
        """Tell whether the pod's containers read their devices from a ConfigMap."""
        return self.claim is not None

    @property
    def holds(self) -> bool:
        """Tell whether the pod holds devices now; one that is only being deleted still does."""
        return self.node is not None and not self.ended


def read_pod(pod: Pod, *, previous: PodFacts | None = None) -> PodFacts:
    """Read a Pod; what cannot change in a pod's life is taken over from `previous`."""
    meta, uid = pod.metadata, PodUid(pod.metadata.uid)
    texts = meta.annotations or {}
    if previous is not None and previous.uid == uid and previous.node is not None:
        demand, fault = previous.demand, previous.fault
    else:
        # Until a pod is bound its owner may change what it wishes for.
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
        unclear=fault or _unclear(demand, assigned, assignment),
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


def _unclear(demand: Demand | None, assigned: str | None, assignment: Assignment | None) -> str:
    if demand is None:
        return ""
    if assigned is None:
        return f"its annotation {contract.ASSIGNED} is missing"
    if assignment is None:
        return f"its annotation {contract.ASSIGNED} cannot be read"
    if not _covers(assignment, demand):
        return f"its annotation {contract.ASSIGNED} does not name what its containers ask for"
    return ""


def _covers(assignment: Assignment, demand: Demand) -> bool:
    """Tell whether an assignment names as many devices as each container asks for."""
    share = demand.totals.get(GPU_MEMORY_RESOURCE, 0)
    if assignment.share_bytes != share:
        return False
    asked = {c.name: 1 if share else sum(c.counts.values()) for c in demand.containers}
    return asked == {name: len(ids) for name, ids in assignment.containers.items()}
