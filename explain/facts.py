"""What was read about one pod and whatever decides its fate, as values. Nothing is judged here.

None stands for what could not be read; `Facts.unreadable` then says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from extender.placement.facts import NodeFacts, PodFacts
from gpus.model import PodUid
from kube.objects import Lease, Node, ObjectMeta, ObjectReference, Pod, Struct


class Source(Struct, frozen=True):
    component: str = ""


class Event(Struct, frozen=True):
    """A core/v1 Event; of the times whichever is there is used."""

    metadata: ObjectMeta = ObjectMeta()
    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    last_timestamp: str | None = None
    first_timestamp: str | None = None
    event_time: str | None = None
    reporting_component: str = ""
    source: Source = Source()

    @property
    def time(self) -> str:
        """Return when it was seen last, as text that sorts by time; empty where nobody says."""
        return self.last_timestamp or self.event_time or self.first_timestamp or ""


class DeploymentSpec(Struct, frozen=True):
    replicas: int | None = None


class DeploymentCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    message: str = ""


class DeploymentStatus(Struct, frozen=True):
    available_replicas: int | None = None
    conditions: list[DeploymentCondition] | None = None


class Deployment(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class QuotaStatus(Struct, frozen=True):
    hard: dict[str, Any] | None = None
    used: dict[str, Any] | None = None


class Quota(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    status: QuotaStatus = QuotaStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate in a Secret of ours; `trusted` tells whether the bundle beside it signs it."""

    secret: str
    not_after: datetime
    trusted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The policies of the fence that exist, and the ServiceAccount that the binding names."""

    policies: frozenset[str]
    account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that a judgement rests on.

    `pod` is None where there is none of that name; `spec` is its spec as it is on the wire.
    `events` are about the pod, `refusals` those of its namespace that tell of pods never made.
    `node_facts` and `pod_facts` are what the extender reads of nodes and pods, for those that were
    read so already.
    `gpu_pods` are bound and have not ended. `leases` and `deployments` are those of our namespace,
    by name.
    """

    namespace: str
    name: str
    now: datetime
    pod: Pod | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[Node, ...] | None = None
    node_facts: Mapping[str, NodeFacts] = field(default_factory=dict)
    pod_facts: Mapping[PodUid, PodFacts] = field(default_factory=dict)
    gpu_pods: tuple[Pod, ...] | None = None
    events: tuple[Event, ...] | None = None
    refusals: tuple[Event, ...] | None = None
    leases: Mapping[str, Lease] | None = None
    deployments: Mapping[str, Deployment] | None = None
    webhook_configured: bool | None = None
    fence: Fence | None = None
    runtime_classes: frozenset[str] | None = None
    quotas: tuple[Quota, ...] | None = None
    certificates: tuple[Certificate, ...] | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
