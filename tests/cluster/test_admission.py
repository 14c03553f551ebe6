"""What a real API server stores when pods are created, with the shipped webhook and policies."""

from __future__ import annotations

import copy
import json
import re

import pytest

from localcluster.api import ApiError
from localcluster.cluster import KubectlError
from localcluster.stack import Stack
from tests.cluster.pods import Create, Object, annotations_of, gpu_pod, plain_pod

pytestmark = pytest.mark.controlplane


def as_stored(stack: Stack, namespace: str, pod: Object) -> Object:
    """What the API server alone makes of a pod: defaults, and the admission that is built in.

    The same pod without what brings it to the webhook, created for trial in the same namespace.
    """
    lookalike = copy.deepcopy(pod)
    for container in lookalike["spec"]["containers"]:
        container.pop("resources", None)
    path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
    return stack.cluster.api.create(path, lookalike)


def test_a_gpu_pod_is_stored_as_designed_and_nothing_else_is_changed(
    stack: Stack, namespace: str, create: Create
) -> None:
    pod = gpu_pod("whole")
    pod["spec"]["containers"].append({"name": "sidecar", "image": "gpudetour.local/box:1"})
    expected = as_stored(stack, namespace, pod)

    stored = create(pod)

    name = annotations_of(stored)["gpudetour.io/devices-from"]
    assert re.fullmatch("gpudetour-devices-[a-z0-9]{20}", name)
    main, sidecar = expected["spec"]["containers"]
    main["resources"] = {
        "limits": {"nvidia.com/gpu": "1"},
        "requests": {"nvidia.com/gpu": "1"},
    }
    key = {"name": name, "key": "main", "optional": True}
    main["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"configMapKeyRef": key}}]
    sidecar["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    expected["spec"]["runtimeClassName"] = "nvidia"
    expected["spec"]["nodeSelector"] = {"gpudetour.io/gpu": "true"}
    expected["spec"]["tolerations"].append(
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    )
    expected["metadata"]["labels"] = {"gpudetour.io/gpu": "true"}
    expected["metadata"]["annotations"] = {"gpudetour.io/devices-from": name}
    assert comparable(expected) == comparable(stored)


def test_a_pod_without_gpus_is_not_touched(stack: Stack, namespace: str, create: Create) -> None:
    pod = plain_pod("plain")
    expected = as_stored(stack, namespace, pod)

    assert comparable(expected) == comparable(create(pod))


def test_a_pod_with_the_nvidia_runtime_and_no_request_sees_no_gpu(create: Create) -> None:
    pod = plain_pod("sneaky")
    pod["spec"]["runtimeClassName"] = "nvidia"

    (container,) = create(pod)["spec"]["containers"]

    assert container["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]


def test_a_pod_that_is_tied_to_a_node_is_refused_with_what_to_write_instead(
    create: Create,
) -> None:
    pod = gpu_pod("tied")
    pod["spec"]["nodeName"] = "node-0"

    with pytest.raises(ApiError, match=r"nodeName.*nodeSelector"):
        create(pod)


def test_a_share_is_refused_because_nothing_would_serve_it(create: Create) -> None:
    pod = gpu_pod("share")
    pod["spec"]["containers"][0]["resources"]["limits"] = {"gpudetour.io/gpu-memory": "8Gi"}

    with pytest.raises(ApiError, match="shares of a GPU are not served"):
        create(pod)


def test_a_forged_assignment_is_not_stored(create: Create) -> None:
    pod = gpu_pod("forger")
    pod["metadata"]["annotations"] = {"gpudetour.io/assigned": '{"v":1,"epoch":1,"containers":{}}'}

    assert "gpudetour.io/assigned" not in annotations_of(create(pod))


def test_an_assignment_cannot_be_written_later_either(
    stack: Stack, namespace: str, create: Create
) -> None:
    create(gpu_pod("patient"))

    with pytest.raises(KubectlError, match="cannot be changed"):
        stack.cluster.kubectl(
            "annotate", "pod", "patient", "-n", namespace, "gpudetour.io/assigned=x", "--overwrite"
        )


def test_the_label_that_makes_gpus_count_stays(
    stack: Stack, namespace: str, create: Create
) -> None:
    create(gpu_pod("shy"))

    with pytest.raises(KubectlError, match="cannot be removed"):
        stack.cluster.kubectl("label", "pod", "shy", "-n", namespace, "gpudetour.io/gpu-")


def test_users_cannot_make_the_config_map_of_a_pod(stack: Stack, namespace: str) -> None:
    forged = {"metadata": {"name": f"gpudetour-devices-{'a' * 20}"}, "data": {"main": "all"}}

    with pytest.raises(ApiError, match="only gpudetour's extender"):
        stack.cluster.api.create(f"/api/v1/namespaces/{namespace}/configmaps", forged)


def test_an_ordinary_config_map_is_none_of_our_business(stack: Stack, namespace: str) -> None:
    ordinary = {"metadata": {"name": "ordinary"}, "data": {"a": "b"}}

    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert ordinary["data"] == stack.cluster.api.create(path, ordinary)["data"]


def comparable(pod: Object) -> Object:
    """A pod without what is drawn anew for every object."""
    pod = copy.deepcopy(pod)
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        pod["metadata"].pop(field, None)
    # The token volume has a random name, which its mounts repeat.
    text = re.sub(r"kube-api-access-[a-z0-9]+", "kube-api-access", json.dumps(pod))
    normal: Object = json.loads(text)
    return normal
