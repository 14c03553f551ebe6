"""What the agent writes on its own Node, and only when the Node says something else.

What to write is pure (`plan`); `Publisher` sends it. Annotations and labels are one server-side
apply, the condition another on the status, both under our own field manager, so that what we no
longer say is taken away by the API server and nothing of others is touched. The condition itself is
taken away by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from gpus.annotations import (
    GPU_LABEL,
    IN_USE,
    INVENTORY,
    PATH,
    PATH_CONDITION,
    PATH_REASON,
    PRODUCT_LABEL_PREFIX,
    SUMMARY,
)
from kube import timestamps
from kube.client import JSON_PATCH, MERGE_PATCH, Client
from nodeagent.labels import TIMESTAMP, is_feature_label
from nodeagent.node import (
    FIELD_MANAGER,
    OwnNode,
    annotation_owners,
    condition_of,
    label_owners,
    removal_of,
)

_ANNOTATIONS = (INVENTORY, IN_USE, PATH, PATH_REASON, SUMMARY)

#: Seconds for which the same write is not sent again: our watch sees it a little later.
_SETTLE = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The condition that tells whether GPUs can be given to pods on this node."""

    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the Node should say. `features` are the labels of GPU feature discovery."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    condition: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The writes that make a Node say what is wanted; all None when it does."""

    #: Server-side apply on the Node.
    metadata: dict[str, Any] | None = None
    #: Merge patch for names of ours that somebody else wrote and that are not wanted.
    leftovers: dict[str, Any] | None = None
    #: Server-side apply on the status.
    status: dict[str, Any] | None = None
    #: JSON patch of the status that takes the condition away.
    withdrawal: list[dict[str, Any]] | None = None


def plan(node: OwnNode, wanted: Wanted, *, now: datetime) -> Plan:
    """Compare the Node with what is wanted; `now` becomes the time of a change of condition."""
    annotations = dict(wanted.annotations)
    labels = dict(wanted.labels)
    if not features_owned_by_others(node):
        labels |= wanted.features
    have_annotations = _ours(node.metadata.annotations, node, labels=False)
    have_labels = _ours(node.metadata.labels, node, labels=True)
    if have_annotations == annotations and have_labels == labels:
        return Plan(
            status=_status(node, wanted.condition, now=now),
            withdrawal=_withdrawal(node, wanted.condition),
        )
    body = _identity(node)
    body["metadata"] |= {"annotations": annotations, "labels": labels}
    return Plan(
        metadata=body,
        leftovers=_leftovers(
            node, have_annotations.keys() - annotations, have_labels.keys() - labels
        ),
        status=_status(node, wanted.condition, now=now),
        withdrawal=_withdrawal(node, wanted.condition),
    )


def features_owned_by_others(node: OwnNode) -> bool:
    """Tell whether GPU feature discovery, or somebody in its place, labels this node."""
    labels = node.metadata.labels or {}
    if TIMESTAMP in labels:
        return True
    return any(
        is_feature_label(name) and label_owners(node, name) - {FIELD_MANAGER} for name in labels
    )


class Publisher:
    """Sends plans; one thread uses it. Raises `KubeError` where the API server refuses."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._path = f"/api/v1/nodes/{node_name}"
        self._clock = clock
        self._wall_clock = wall_clock
        self._sent: dict[str, tuple[object, object, float]] = {}
        self.writes = 0

    def publish(self, node: OwnNode, wanted: Wanted) -> None:
        """Make the Node say what is wanted, with as few writes as possible."""
        todo = plan(node, wanted, now=self._wall_clock())
        metadata = (node.metadata.annotations, node.metadata.labels)
        if todo.metadata is not None and self._is_new("metadata", todo.metadata, metadata):
            self._client.apply(self._path, todo.metadata, field_manager=FIELD_MANAGER, force=True)
            log.info("node updated", annotations=sorted(todo.metadata["metadata"]["annotations"]))
        if todo.leftovers is not None and self._is_new("leftovers", todo.leftovers, metadata):
            self._client.patch(self._path, todo.leftovers, content_type=MERGE_PATCH)
        condition = condition_of(node, PATH_CONDITION)
        if todo.status is not None and self._is_new("status", wanted.condition, condition):
            status = f"{self._path}/status"
            self._client.apply(status, todo.status, field_manager=FIELD_MANAGER, force=True)
        if todo.withdrawal is not None and self._is_new("status", None, condition):
            status = f"{self._path}/status"
            self._client.patch(status, todo.withdrawal, content_type=JSON_PATCH)

    def remove_stale(self, node: OwnNode, names: list[str]) -> None:
        """Remove resources that nobody serves from node status."""
        patch = removal_of(names, node)
        if patch and self._is_new("stale", patch, node.metadata.resource_version):
            self._client.patch(f"{self._path}/status", patch, content_type=JSON_PATCH)
            log.info("stale capacity removed from node status", resources=names)

    def _is_new(self, kind: str, change: object, seen: object) -> bool:
        """Tell whether to send a change: not when it was sent a moment ago on the same sight."""
        sent, sight, at = self._sent.get(kind, (None, None, 0.0))
        if (sent, sight) == (change, seen) and self._clock() - at < _SETTLE:
            return False
        self._sent[kind] = (change, seen, self._clock())
        self.writes += 1
        return True


def _ours(values: Mapping[str, str] | None, node: OwnNode, *, labels: bool) -> dict[str, str]:
    """Return what the Node says under names that are ours to write."""
    values = values or {}
    if not labels:
        return {name: values[name] for name in _ANNOTATIONS if name in values}
    return {
        name: value
        for name, value in values.items()
        if name == GPU_LABEL
        or name.startswith(PRODUCT_LABEL_PREFIX)
        or (is_feature_label(name) and label_owners(node, name) == {FIELD_MANAGER})
    }


def _leftovers(node: OwnNode, annotations: set[str], labels: set[str]) -> dict[str, Any] | None:
    foreign_annotations = {
        n: None for n in annotations if FIELD_MANAGER not in annotation_owners(node, n)
    }
    foreign_labels = {n: None for n in labels if FIELD_MANAGER not in label_owners(node, n)}
    if not foreign_annotations and not foreign_labels:
        return None
    return {"metadata": {"annotations": foreign_annotations, "labels": foreign_labels}}


def _status(node: OwnNode, wanted: Condition | None, *, now: datetime) -> dict[str, Any] | None:
    have = condition_of(node, PATH_CONDITION)
    if wanted is None:
        return None
    status = "True" if wanted.status else "False"
    moment = timestamps.time(now)
    entry = {
        "type": PATH_CONDITION,
        "status": status,
        "reason": wanted.reason,
        "message": wanted.message,
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
    if have is not None:
        if (have.status, have.reason, have.message) == (status, wanted.reason, wanted.message):
            return None
        if have.status == status and have.last_transition_time:
            entry["lastTransitionTime"] = have.last_transition_time
    return {**_identity(node), "status": {"conditions": [entry]}}


def _withdrawal(node: OwnNode, wanted: Condition | None) -> list[dict[str, Any]] | None:
    """Take the condition away where none is wanted.

    An apply that says no status takes away all of it that nobody owns, and that is most: what
    kubelet says when it creates its Node has no owner.
    """
    if wanted is not None:
        return None
    for index, condition in enumerate(node.status.conditions or ()):
        if condition.type == PATH_CONDITION:
            pointer = f"/status/conditions/{index}"
            return [
                {"op": "test", "path": f"{pointer}/type", "value": PATH_CONDITION},
                {"op": "remove", "path": pointer},
            ]
    return None


def _identity(node: OwnNode) -> dict[str, Any]:
    # With the UID the API server refuses, rather than creates, where the Node is gone.
    metadata = {"name": node.metadata.name, "uid": node.metadata.uid}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
