"""What is written on the Node, and that nothing is when nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gpus.annotations import IN_USE, INVENTORY, PATH, PATH_CONDITION, SUMMARY
from kube.client import Client
from kube.objects import NodeCondition
from nodeagent.node import (
    FIELD_MANAGER,
    ManagedFields,
    NodeMeta,
    NodeStatus,
    OwnNode,
    gpu_capacity,
    removal_of,
)
from nodeagent.publisher import Condition, Plan, Publisher, Wanted, features_owned_by_others, plan
from tests.fakes.api_server import Answer, FakeApiServer, Request

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EARLIER = "2026-01-01T00:00:00Z"
WANTED = Wanted(
    annotations={PATH: "plugin", SUMMARY: "1 x GPU"},
    labels={"gpudetour.io/gpu": "true"},
    features={"nvidia.com/gpu.count": "1"},
    condition=Condition(status=True, reason="OwnDevicePlugin", message="served"),
)
ALL_LABELS = {"gpudetour.io/gpu": "true", "nvidia.com/gpu.count": "1"}


def _fields(annotations: list[str], labels: list[str]) -> dict[str, Any]:
    return {
        "f:metadata": {
            "f:annotations": {f"f:{name}": {} for name in annotations},
            "f:labels": {f"f:{name}": {} for name in labels},
        }
    }


def _node(
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    *,
    condition: NodeCondition | None = None,
    owner: str = FIELD_MANAGER,
) -> OwnNode:
    fields = _fields(list(annotations or {}), list(labels or {}))
    return OwnNode(
        metadata=NodeMeta(
            name="n1",
            uid="u1",
            annotations=annotations,
            labels=labels,
            managed_fields=[ManagedFields(manager=owner, fields_v1=fields)],
        ),
        status=NodeStatus(conditions=[condition] if condition else None),
    )


def _condition(**changes: str) -> NodeCondition:
    values = {
        "type": PATH_CONDITION,
        "status": "True",
        "reason": "OwnDevicePlugin",
        "message": "served",
        "last_transition_time": EARLIER,
        **changes,
    }
    return NodeCondition(**values)


def test_a_node_that_says_it_all_needs_no_write() -> None:
    node = _node(dict(WANTED.annotations), ALL_LABELS, condition=_condition())
    assert plan(node, WANTED, now=NOW) == Plan()


def test_a_fresh_node_gets_everything_under_its_uid() -> None:
    todo = plan(OwnNode(metadata=NodeMeta(name="n1", uid="u1")), WANTED, now=NOW)
    assert todo.metadata == {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "n1",
            "uid": "u1",
            "annotations": dict(WANTED.annotations),
            "labels": ALL_LABELS,
        },
    }
    assert todo.leftovers is None
    assert todo.status is not None
    assert todo.status["status"]["conditions"] == [
        {
            "type": PATH_CONDITION,
            "status": "True",
            "reason": "OwnDevicePlugin",
            "message": "served",
            "lastHeartbeatTime": "2026-01-02T03:04:05Z",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
    ]


@pytest.mark.parametrize(
    ("annotations", "labels"),
    [
        ({PATH: "annotation", SUMMARY: "1 x GPU"}, ALL_LABELS),
        ({PATH: "plugin"}, ALL_LABELS),
        (dict(WANTED.annotations), {"nvidia.com/gpu.count": "1"}),
        (dict(WANTED.annotations), {**ALL_LABELS, "nvidia.com/gpu.family": "ampere"}),
        (dict(WANTED.annotations), {**ALL_LABELS, "gpudetour.io/product.NVIDIA-L4": "2"}),
        ({**WANTED.annotations, IN_USE: "old"}, ALL_LABELS),
    ],
)
def test_what_was_edited_or_is_out_of_date_is_applied_anew(
    annotations: dict[str, str], labels: dict[str, str]
) -> None:
    todo = plan(_node(annotations, labels, condition=_condition()), WANTED, now=NOW)
    assert todo.metadata is not None
    assert todo.metadata["metadata"]["annotations"] == WANTED.annotations
    assert todo.metadata["metadata"]["labels"] == ALL_LABELS
    assert todo.leftovers is None
    assert todo.status is None


def test_names_of_ours_that_somebody_else_wrote_are_removed_by_name() -> None:
    node = _node({INVENTORY: "{}"}, {"gpudetour.io/gpu": "true"}, owner="kubectl-annotate")
    todo = plan(node, Wanted(annotations={SUMMARY: "no GPU"}), now=NOW)
    assert todo.leftovers == {
        "metadata": {"annotations": {INVENTORY: None}, "labels": {"gpudetour.io/gpu": None}}
    }


def test_other_annotations_and_labels_are_nobodys_business_here() -> None:
    annotations = {**WANTED.annotations, "example.com/a": "b"}
    labels = {**ALL_LABELS, "gpudetour.io/path": "annotation", "nvidia.com/gpu.present": "true"}
    assert plan(_node(annotations, labels, condition=_condition()), WANTED, now=NOW) == Plan()


@pytest.mark.parametrize(
    ("labels", "owner", "others"),
    [
        ({"nvidia.com/gpu.count": "1"}, FIELD_MANAGER, False),
        ({"nvidia.com/gpu.count": "1"}, "nfd-master", True),
        ({"nvidia.com/gfd.timestamp": "1"}, FIELD_MANAGER, True),
        ({"nvidia.com/gpu.present": "true"}, "gpu-operator", False),
        ({}, FIELD_MANAGER, False),
    ],
)
def test_labels_of_gpu_feature_discovery_are_left_alone(
    labels: dict[str, str], owner: str, others: bool
) -> None:
    node = _node(dict(WANTED.annotations), labels, condition=_condition(), owner=owner)
    assert features_owned_by_others(node) is others
    todo = plan(node, WANTED, now=NOW)
    written = todo.metadata["metadata"]["labels"] if todo.metadata else {}
    assert ("nvidia.com/gpu.count" in written) is not others


@pytest.mark.parametrize(
    ("changes", "transition"),
    [
        ({"message": "other"}, EARLIER),
        ({"reason": "Other"}, EARLIER),
        ({"status": "False"}, "2026-01-02T03:04:05Z"),
    ],
)
def test_the_condition_changes_its_time_only_with_its_status(
    changes: dict[str, str], transition: str
) -> None:
    node = _node(dict(WANTED.annotations), ALL_LABELS, condition=_condition(**changes))
    todo = plan(node, WANTED, now=NOW)
    assert todo.metadata is None
    assert todo.status is not None
    (condition,) = todo.status["status"]["conditions"]
    assert condition["lastTransitionTime"] == transition


def test_a_condition_that_is_not_wanted_is_taken_away_and_no_other() -> None:
    """An apply without a status would take away what kubelet said when it created the Node."""
    todo = plan(_node(condition=_condition()), Wanted(), now=NOW)
    assert todo.status is None
    assert todo.withdrawal == [
        {"op": "test", "path": "/status/conditions/0/type", "value": PATH_CONDITION},
        {"op": "remove", "path": "/status/conditions/0"},
    ]


def test_no_condition_is_taken_away_where_there_is_none() -> None:
    assert plan(_node(), Wanted(), now=NOW).withdrawal is None


def test_gpu_resources_are_counted_by_the_larger_number_and_others_are_not() -> None:
    status = NodeStatus(
        capacity={"nvidia.com/gpu": "2", "nvidia.com/mig-1g.5gb": "x", "cpu": "4"},
        allocatable={"nvidia.com/gpu": "0", "gpudetour.io/gpu-memory": "1"},
    )
    assert gpu_capacity(OwnNode(status=status)) == {
        "nvidia.com/gpu": 2,
        "nvidia.com/mig-1g.5gb": 1,
    }


def test_removal_tests_each_value_before_it_takes_it_away() -> None:
    status = NodeStatus(capacity={"nvidia.com/gpu": "2"}, allocatable={"nvidia.com/gpu": "0"})
    assert removal_of(["nvidia.com/gpu"], OwnNode(status=status)) == [
        {"op": "test", "path": "/status/capacity/nvidia.com~1gpu", "value": "2"},
        {"op": "remove", "path": "/status/capacity/nvidia.com~1gpu"},
        {"op": "test", "path": "/status/allocatable/nvidia.com~1gpu", "value": "0"},
        {"op": "remove", "path": "/status/allocatable/nvidia.com~1gpu"},
    ]


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def _publishing(clock: Callable[[], float]) -> Iterator[tuple[Publisher, list[Request]]]:
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        requests.append(request)
        return Answer(body={})

    with FakeApiServer(answer) as server:
        client = Client(server.connection())
        yield Publisher(client, "n1", clock=clock, wall_clock=lambda: NOW), requests


def test_a_write_is_repeated_only_if_its_effect_is_not_seen() -> None:
    clock = _Clock()
    node = OwnNode(metadata=NodeMeta(name="n1", uid="u1"))
    with _publishing(clock) as (publisher, requests):
        publisher.publish(node, WANTED)
        assert [(r.method, r.path) for r in requests] == [
            ("PATCH", "/api/v1/nodes/n1"),
            ("PATCH", "/api/v1/nodes/n1/status"),
        ]
        assert {r.params["fieldManager"] for r in requests} == {FIELD_MANAGER}
        publisher.publish(node, WANTED)
        assert len(requests) == 2
        # Somebody edits it right after: that is another sight of the Node.
        publisher.publish(_node({PATH: "annotation"}, ALL_LABELS), WANTED)
        assert len(requests) == 3
        clock.now += 6
        publisher.publish(_node({PATH: "annotation"}, ALL_LABELS), WANTED)
        assert len(requests) == 5
        assert publisher.writes == 5


def test_stale_capacity_is_removed_by_json_patch() -> None:
    status = NodeStatus(capacity={"nvidia.com/gpu": "0"}, allocatable={"nvidia.com/gpu": "0"})
    node = OwnNode(metadata=NodeMeta(name="n1", uid="u1", resource_version="7"), status=status)
    with _publishing(_Clock()) as (publisher, requests):
        publisher.remove_stale(node, ["nvidia.com/gpu"])
        publisher.remove_stale(node, ["nvidia.com/gpu"])
        (request,) = requests
        assert request.path == "/api/v1/nodes/n1/status"
        assert request.headers["Content-Type"] == "application/json-patch+json"
        assert [step["op"] for step in request.body] == ["test", "remove"] * 2


def test_a_real_node_with_managed_fields_is_read() -> None:
    text = msgspec.json.encode(
        {
            "metadata": {
                "name": "n1",
                "labels": {"nvidia.com/gpu.count": "1"},
                "managedFields": [
                    {
                        "manager": "nfd-master",
                        "operation": "Update",
                        "fieldsType": "FieldsV1",
                        "fieldsV1": {"f:metadata": {"f:labels": {"f:nvidia.com/gpu.count": {}}}},
                    },
                    {"manager": "kubelet", "subresource": "status", "fieldsV1": {"f:status": {}}},
                ],
            },
            "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.5"}},
        }
    )
    node = msgspec.json.decode(text, type=OwnNode)
    assert features_owned_by_others(node)
    assert node.status.node_info.container_runtime_version == "containerd://2.1.5"
