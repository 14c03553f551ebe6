"""GPU pods on a real kube-scheduler with the shipped configuration: who gets which GPU."""

from __future__ import annotations

import json

import pytest

from localcluster.stack import Stack
from tests.cluster.pods import Create, Object, PodWhen, annotations_of, bound, gpu_pod, refused_for

pytestmark = pytest.mark.controlplane


def assigned(pod: Object) -> dict[str, list[str]]:
    """Container to device UUIDs, as the Binding wrote it."""
    containers: dict[str, list[str]] = json.loads(annotations_of(pod)["gpudetour.io/assigned"])[
        "containers"
    ]
    return containers


def test_the_assignment_comes_with_the_node_and_reaches_the_container_by_config_map(
    stack: Stack, namespace: str, create: Create, pod_when: PodWhen
) -> None:
    created = create(gpu_pod("one"))

    pod = pod_when("one", bound)

    (device,) = assigned(pod)["main"]
    name = annotations_of(created)["gpudetour.io/devices-from"]
    config_map = stack.cluster.api.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
    assert {"main": device} == config_map["data"]
    assert config_map["immutable"]
    (owner,) = config_map["metadata"]["ownerReferences"]
    assert (pod["metadata"]["uid"], "Pod") == (owner["uid"], owner["kind"])
    node = stack.cluster.api.get(f"/api/v1/nodes/{pod['spec']['nodeName']}")
    inventory = json.loads(annotations_of(node)["gpudetour.io/inventory"])
    assert device in [gpu["uuid"] for gpu in inventory["gpus"]]


def test_containers_that_run_together_never_share_and_init_containers_reuse(
    create: Create, pod_when: PodWhen
) -> None:
    pod = gpu_pod("several", gpus=2)
    limits = {"limits": {"nvidia.com/gpu": 1}}
    image = "gpudetour.local/cuda:1"
    pod["spec"]["containers"].append({"name": "second", "image": image, "resources": limits})
    pod["spec"]["initContainers"] = [
        {"name": "first", "image": image, "resources": {"limits": {"nvidia.com/gpu": 3}}},
        {"name": "beside", "image": image, "restartPolicy": "Always", "resources": limits},
    ]
    create(pod)

    devices = assigned(pod_when("several", bound))

    assert tuple(len(devices[n]) for n in ("main", "second", "first", "beside")) == (2, 1, 3, 1)
    together = [*devices["main"], *devices["second"], *devices["beside"]]
    assert len(set(together)) == 4
    assert set(devices["first"]) <= set(together)


def test_forty_pods_get_forty_gpus_and_the_next_moves_in_when_one_leaves(
    stack: Stack, namespace: str, create: Create, pod_when: PodWhen
) -> None:
    names = [f"pod-{number:02}" for number in range(40)]
    for name in names:
        create(gpu_pod(name))
    devices = [assigned(pod_when(name, bound))["main"] for name in names]

    assert len({device for (device,) in devices}) == 40

    create(gpu_pod("late"))
    pod_when("late", refused_for("0/5 nodes are available: 5 all GPUs in use."))

    stack.cluster.kubectl("delete", "pod", names[7], "-n", namespace, "--wait=false")

    assert devices[7] == assigned(pod_when("late", bound))["main"]


def test_a_pod_that_no_node_could_ever_hold_is_told_so(create: Create, pod_when: PodWhen) -> None:
    create(gpu_pod("greedy", gpus=9))

    pod_when("greedy", refused_for("5 fewer GPUs than asked"))
