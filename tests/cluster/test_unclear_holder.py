"""A GPU pod that somebody else bound: its node gives out nothing more, and its owner is told."""

from __future__ import annotations

import json

import pytest

from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Create, PodWhen, annotations_of, asking, bound, gpu_pod, refused

pytestmark = pytest.mark.controlplane

NODE = "node-4"


def test_a_pod_that_another_scheduler_bound_stops_its_node_and_is_warned(
    stack: Stack, namespace: str, create: Create, pod_when: PodWhen
) -> None:
    api, pods = stack.cluster.api, f"/api/v1/namespaces/{namespace}/pods"
    foreign = gpu_pod("foreign")
    foreign["spec"]["schedulerName"] = "somebody-else"
    create(foreign)
    binding = {"metadata": {"name": "foreign"}, "target": {"kind": "Node", "name": NODE}}
    api.create(f"{pods}/foreign/binding", binding)

    def warned() -> list[str]:
        events = api.get(f"/api/v1/namespaces/{namespace}/events")["items"]
        found = (e for e in events if e["reason"] == "GPUsUnknown" and e["type"] == "Warning")
        return [e["message"] for e in found if e["involvedObject"]["name"] == "foreign"]

    (message,) = until(warned, timeout=30, what="the warning about the foreign pod")
    assert message.startswith(f"It cannot be said which GPUs of node {NODE} this pod holds")

    inventory = annotations_of(api.get(f"/api/v1/nodes/{NODE}"))["gpudetour.io/inventory"]
    create(asking("picky", {"nvidia.com/gpu": 1}, uuid=json.loads(inventory)["gpus"][0]["uuid"]))
    waiting = refused(pod_when("picky", lambda pod: refused(pod) != ""))
    assert "1 GPU holder unknown" in waiting
    assert "4 no GPU of the asked kind" in waiting

    stack.cluster.kubectl(
        *("delete", "pod", "foreign", "-n", namespace, "--force", "--grace-period=0")
    )
    assert pod_when("picky", bound)["spec"]["nodeName"] == NODE
