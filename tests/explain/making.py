"""Facts for the judge, as the API server would tell them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace as changed

from explain.causes import Cause
from explain.facts import Event, Facts, Fence
from explain.findings import Explanation
from kube.objects import Lease, LeaseSpec, ObjectMeta, ObjectReference, Pod, PodCondition
from tests.builders import NodeBuilder, PodBuilder, node

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
FRESH = "2026-06-01T11:59:55.000000Z"
OLD = "2026-06-01T10:00:00.000000Z"
SOUND_FENCE = Fence(
    policies=frozenset({"gpudetour-fence", "gpudetour-assign"}), account="gpudetour-extender"
)


def free(name: str) -> NodeBuilder:
    """A node with two GPUs that nobody holds."""
    return node(name).with_gpus(2).cards(memory_bytes=80 << 30).annotation_path()


def causes(told: Explanation) -> list[Cause]:
    """The causes in the order in which they are told."""
    return [found.cause for found in told.findings]


def lease(name: str, renewed: str | None = FRESH, *, holder: str = "somebody") -> Lease:
    spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=40, renew_time=renewed)
    return Lease(metadata=ObjectMeta(name=name), spec=spec)


def leases(*found: Lease) -> dict[str, Lease]:
    return {each.metadata.name: each for each in found}


def facts(
    pod: PodBuilder,
    *nodes: NodeBuilder,
    holders: Iterable[PodBuilder] = (),
    said: str = "0/9 nodes are available: 9 all GPUs in use. preemption: none.",
    spec: dict[str, Any] | None = None,
    **more: Any,
) -> Facts:
    """Where all parts work and the scheduler has looked at the pod."""
    built = pod.build()
    condition = PodCondition(
        type="PodScheduled", status="False", reason="Unschedulable", message=said
    )
    conditions = [condition] if said else []
    raw = {**pod.raw()["spec"], **(spec or {})}
    known = Facts(
        namespace=built.metadata.namespace,
        name=built.metadata.name,
        now=NOW,
        pod=with_conditions(built, conditions),
        spec=raw,
        nodes=tuple(node.build() for node in nodes),
        gpu_pods=tuple(holder.build() for holder in holders),
        events=(),
        leases=leases(lease("gpudetour-extender")),
        deployments={},
        runtime_classes=frozenset({"nvidia"}),
        fence=SOUND_FENCE,
    )
    return replace(known, **more)


def with_conditions(pod: Pod, conditions: list[PodCondition]) -> Pod:
    """The pod as the scheduler has seen it."""
    return changed(pod, status=changed(pod.status, conditions=conditions))


def missing(name: str = "train", *refusals: Event, **more: Any) -> Facts:
    """Where there is no pod of that name."""
    return Facts(namespace="default", name=name, now=NOW, refusals=refusals, quotas=(), **more)


def refusal(message: str, *, owner: str = "train", time: str = FRESH) -> Event:
    return Event(
        involved_object=ObjectReference(kind="Job", name=owner),
        reason="FailedCreate",
        message=message,
        last_timestamp=time,
    )
