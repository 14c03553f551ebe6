"""The parts of Kubernetes objects that we read, as msgspec structs. Data only, no behaviour.

Unknown fields are ignored, absent ones take the API's default. Objects that must be written back
whole (admission) are never passed through these structs: they would lose fields.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: A quantity on the wire: the API server sends text, other writers may send numbers.
Quantity = str | int | float


class Struct(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """Base: camelCase on the wire, immutable, defaults left out when encoded."""


class OwnerReference(Struct, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class ObjectReference(Struct, frozen=True):
    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class ObjectMeta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None
    owner_references: list[OwnerReference] | None = None


class Object(Struct, frozen=True):
    """Any object of which only the metadata matters."""

    metadata: ObjectMeta = ObjectMeta()


class Resources(Struct, frozen=True):
    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class Container(Struct, frozen=True):
    name: str = ""
    resources: Resources | None = None
    #: "Always" on an init container makes it a sidecar (KEP-753).
    restart_policy: str | None = None


class PodSpec(Struct, frozen=True):
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    node_name: str = ""
    scheduler_name: str = ""
    #: Both are set by admission from the PriorityClass; absent where there is none.
    priority: int | None = None
    preemption_policy: str | None = None
    runtime_class_name: str | None = None


class PodCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class PodStatus(Struct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    #: Where kube-scheduler evicts others for this pod.
    nominated_node_name: str = ""
    conditions: list[PodCondition] | None = None


class Pod(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NodeCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None


class Taint(Struct, frozen=True):
    key: str = ""
    effect: str = ""
    value: str | None = None


class NodeSpec(Struct, frozen=True):
    unschedulable: bool = False
    taints: list[Taint] | None = None


class NodeStatus(Struct, frozen=True):
    capacity: dict[str, Quantity] | None = None
    allocatable: dict[str, Quantity] | None = None
    conditions: list[NodeCondition] | None = None


class Node(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class LeaseSpec(Struct, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()


class Status(Struct, frozen=True):
    """What the API server answers instead of an object when it refuses."""

    message: str = ""
    reason: str = ""
    code: int | None = None
    details: dict[str, Any] | None = None


class ListMeta(Struct, frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
