"""The agent's own Node as it reads it, and questions about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpus.annotations import PATH, PATH_WISH_LABEL
from gpus.demand import is_gpu_resource
from gpus.model import Path
from gpus.quantity import QuantityError, whole
from kube.objects import (
    NodeCondition,
    ObjectMeta,
    ObjectReference,
    OwnerReference,
    Quantity,
    Struct,
)

#: Everything that the agent writes on its Node, by server-side apply, is owned by this name.
FIELD_MANAGER = "gpudetour-node-agent"
#: Resources of NVIDIA's device plugin or of ours in its place; others are never touched.
_VENDOR = "nvidia.com/"


class ManagedFields(Struct, frozen=True):
    manager: str = ""
    subresource: str = ""
    fields_v1: Any = None


class NodeMeta(ObjectMeta, frozen=True):
    managed_fields: list[ManagedFields] | None = None


class NodeInfo(Struct, frozen=True):
    container_runtime_version: str = ""
    kubelet_version: str = ""


class NodeStatus(Struct, frozen=True):
    capacity: dict[str, Quantity] | None = None
    allocatable: dict[str, Quantity] | None = None
    conditions: list[NodeCondition] | None = None
    node_info: NodeInfo = NodeInfo()


class OwnNode(Struct, frozen=True):
    """A Node with those fields that the agent needs; other parts read `kube.objects.Node`."""

    metadata: NodeMeta = NodeMeta()
    status: NodeStatus = NodeStatus()


def is_served_resource(name: str) -> bool:
    """Tell whether a resource is one that a GPU device plugin serves."""
    return name.startswith(_VENDOR) and is_gpu_resource(name)


def gpu_capacity(node: OwnNode) -> dict[str, int]:
    """Return the GPU resources in node status and their counts, zeros included.

    The larger of capacity and allocatable counts; what is no number counts as one, not as zero.
    """
    counts: dict[str, int] = {}
    for resources in (node.status.capacity, node.status.allocatable):
        for name, quantity in (resources or {}).items():
            if is_served_resource(name):
                counts[name] = max(counts.get(name, 0), _count(quantity))
    return counts


def allocatable(node: OwnNode) -> int:
    """Return how many GPU devices kubelet offers to pods, used ones included."""
    offered = node.status.allocatable or {}
    return sum(_count(offered[name]) for name in offered if is_served_resource(name))


def removal_of(names: Iterable[str], node: OwnNode) -> list[dict[str, Any]]:
    """Return the JSON patch that takes these resources out of node status.

    Each removal is guarded by a test, so that a count that changed meanwhile stays.
    """
    patch: list[dict[str, Any]] = []
    for field in ("capacity", "allocatable"):
        present = getattr(node.status, field) or {}
        for name in sorted(set(names) & set(present)):
            pointer = f"/status/{field}/{name.replace('~', '~0').replace('/', '~1')}"
            patch.append({"op": "test", "path": pointer, "value": str(present[name])})
            patch.append({"op": "remove", "path": pointer})
    return patch


def published_path(node: OwnNode) -> Path | None:
    """Return the path that the Node shows to the extender; unknown words count as none."""
    try:
        return Path((node.metadata.annotations or {}).get(PATH, ""))
    except ValueError:
        return None


def asks_for_annotation_path(node: OwnNode) -> bool:
    """Tell whether an admin asks for the annotation path by the node label."""
    return (node.metadata.labels or {}).get(PATH_WISH_LABEL) == Path.ANNOTATION


def label_owners(node: OwnNode, label: str) -> set[str]:
    """Return the field managers that own a label (metadata.managedFields, KEP-555)."""
    return {
        entry.manager
        for entry in node.metadata.managed_fields or ()
        if _owns(entry.fields_v1, "f:metadata", "f:labels", f"f:{label}")
    }


def annotation_owners(node: OwnNode, annotation: str) -> set[str]:
    """Return the field managers that own an annotation."""
    return {
        entry.manager
        for entry in node.metadata.managed_fields or ()
        if _owns(entry.fields_v1, "f:metadata", "f:annotations", f"f:{annotation}")
    }


def condition_of(node: OwnNode, kind: str) -> NodeCondition | None:
    """Return the condition of that type, if the Node has it."""
    found = (c for c in node.status.conditions or () if c.type == kind)
    return next(found, None)


def reference(node: OwnNode) -> ObjectReference:
    """Return how Events name this Node: kubelet's way, which `kubectl describe node` looks for."""
    return ObjectReference(
        api_version="v1", kind="Node", name=node.metadata.name, uid=node.metadata.name
    )


def owner(node: OwnNode) -> OwnerReference:
    """Return the owner reference with which objects go when the Node goes."""
    return OwnerReference(
        api_version="v1", kind="Node", name=node.metadata.name, uid=node.metadata.uid
    )


def _owns(fields: Any, *steps: str) -> bool:
    for step in steps:
        if not isinstance(fields, dict) or step not in fields:
            return False
        fields = fields[step]
    return True


def _count(quantity: Quantity) -> int:
    try:
        return whole(quantity)
    except QuantityError:
        return 1
