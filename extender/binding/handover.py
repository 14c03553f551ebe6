"""The objects that hand a pod its node and its devices: the ConfigMap and the Binding.

Both begin their `assigned` annotation with the epoch and bear our label, for that is what the
fencing policy looks at (manifests/chart/templates/policy-fence.yaml).
"""

from __future__ import annotations

from typing import Any

from extender.placement.distribute import Containers
from extender.placement.facts import ClaimKey
from extender.placement.state import Reservation
from gpus.annotations import (
    ASSIGNED,
    ASSIGNED_NODE,
    GPU_LABEL,
    GPU_LABEL_VALUE,
    AnnotationError,
    decode_assigned,
    encode_assigned,
)
from gpus.model import Assignment, NodeName, PodUid
from kube.objects import ObjectMeta, Struct

_LABELS = {GPU_LABEL: GPU_LABEL_VALUE}


class ConfigMap(Struct, frozen=True):
    """The parts of a ConfigMap that we read."""

    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None


def config_map(reservation: Reservation, claim: ClaimKey) -> dict[str, Any]:
    """Return the ConfigMap from which the pod's containers read their devices.

    It cannot be changed, and goes when the pod goes.
    """
    _, _, name = claim.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": reservation.namespace,
            "labels": _LABELS,
            "annotations": {
                ASSIGNED: encode_assigned(reservation.assignment),
                ASSIGNED_NODE: reservation.node,
            },
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": reservation.name,
                    "uid": reservation.uid,
                    "controller": False,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "immutable": True,
        "data": devices_data(reservation.assignment.containers),
    }


def binding(
    name: str, *, namespace: str, uid: PodUid | None, node: NodeName, assignment: Assignment
) -> dict[str, Any]:
    """Return the Binding; the API server copies its annotations to the pod with the node name.

    With a UID it is refused for any other pod of that name.
    """
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": name,
            "namespace": namespace,
            **({"uid": uid} if uid is not None else {}),
            "labels": _LABELS,
            "annotations": {ASSIGNED: encode_assigned(assignment)},
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }


def binding_path(namespace: str, name: str) -> str:
    """Return where Bindings of a pod are created."""
    return f"/api/v1/namespaces/{namespace}/pods/{name}/binding"


def devices_data(containers: Containers) -> dict[str, str]:
    """Return what each container's environment reads: its devices, separated by commas."""
    return {name: ",".join(devices) for name, devices in containers.items()}


def owner_of(found: ConfigMap) -> PodUid | None:
    """Return the UID of the pod that a ConfigMap belongs to."""
    pods = [o.uid for o in found.metadata.owner_references or () if o.kind == "Pod"]
    return PodUid(pods[0]) if len(pods) == 1 else None


def told_by(found: ConfigMap) -> Containers | None:
    """Return the assignment that a ConfigMap tells, or None when it contradicts itself."""
    text = (found.metadata.annotations or {}).get(ASSIGNED)
    if text is None:
        return None
    try:
        containers = decode_assigned(text).containers
    except AnnotationError:
        return None
    return containers if devices_data(containers) == (found.data or {}) else None
