"""What a real API server stores when pods are created, with the shipped webhook and policies."""

from __future__ import annotations

import copy
import json
import re

import pytest

from localcluster.api import ApiError
from localcluster.cluster import KubectlError
from localcluster.stack import Stack
from tests.cluster.pods import Create, Object, annotations_of, asking, gpu_pod, plain_pod

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


def test_a_share_makes_a_pod_a_gpu_pod(create: Create) -> None:
    pod = asking("share", {"gpudetour.io/gpu-memory": "8Gi"}, product="*H100*", policy="binpack")

    stored = create(pod)

    (container,) = stored["spec"]["containers"]
    name = annotations_of(stored)["gpudetour.io/devices-from"]
    assert container["resources"]["limits"] == {"gpudetour.io/gpu-memory": "8Gi"}
    assert container["env"][-1]["valueFrom"]["configMapKeyRef"]["name"] == name
    assert stored["metadata"]["labels"] == {"gpudetour.io/gpu": "true"}
    assert stored["spec"]["nodeSelector"] == {"gpudetour.io/gpu": "true"}
    assert stored["spec"]["runtimeClassName"] == "nvidia"
    assert "nvidia.com/gpu" in [t.get("key") for t in stored["spec"]["tolerations"]]
    assert annotations_of(stored)["gpudetour.io/product"] == "*H100*"


@pytest.mark.parametrize("resource", ["gpudetour.io/gpu-memory", "nvidia.com/mig-1g.10gb"])
@pytest.mark.parametrize("restart", [None, "Always"], ids=["init", "sidecar"])
def test_what_only_an_init_container_or_a_sidecar_asks_for_makes_a_gpu_pod_too(
    create: Create, resource: str, restart: str | None
) -> None:
    first = {**plain_pod("x")["spec"]["containers"][0], "name": "first"}
    first["resources"] = {"limits": {resource: str(1 << 30) if "memory" in resource else "1"}}
    if restart:
        first["restartPolicy"] = restart
    pod = plain_pod("prepares")
    pod["spec"]["initContainers"] = [first]

    stored = create(pod)

    assert stored["metadata"]["labels"] == {"gpudetour.io/gpu": "true"}
    assert "configMapKeyRef" in stored["spec"]["initContainers"][0]["env"][-1]["valueFrom"]
    assert stored["spec"]["containers"][0]["env"][-1]["value"] == "void"


def test_every_fault_of_a_pod_is_told_in_one_message(create: Create) -> None:
    pod = asking(
        "muddled",
        {"nvidia.com/gpu": "2", "gpudetour.io/gpu-memory": "8Gi"},
        uuid="GPU-a",
        min_memory="40",
        toplogy="nvlink",
    )
    pod["spec"]["nodeName"] = "node-0"

    with pytest.raises(ApiError) as refused:
        create(pod)

    message = str(refused.value)
    assert "admission webhook" in message
    for told in (
        "ask for one of the two, or make two pods",
        "annotation gpudetour.io/uuid leaves 1 GPUs to choose from, but the pod asks for 2",
        "annotation gpudetour.io/min-memory: that is 40 bytes; write the unit too, such as 40Gi",
        "annotation gpudetour.io/toplogy is not known; write gpudetour.io/topology",
        "spec.nodeName is 'node-0'",
    ):
        assert told in message


def test_a_share_without_a_unit_is_refused_with_what_to_write(create: Create) -> None:
    with pytest.raises(ApiError, match=r"that is 8 bytes; write the unit too, such as 8Gi"):
        create(asking("small", {"gpudetour.io/gpu-memory": "8"}))


def test_a_resource_of_ours_that_does_not_exist_is_refused(create: Create) -> None:
    with pytest.raises(ApiError, match=r"no node has it; write gpudetour\.io/gpu-memory"):
        create(asking("odd", {"gpudetour.io/memory": "8"}))


def test_a_wish_on_a_pod_without_gpus_is_none_of_our_business(create: Create) -> None:
    pod = plain_pod("plain")
    pod["metadata"]["annotations"] = {"gpudetour.io/topology": "ring"}

    assert annotations_of(create(pod)) == {"gpudetour.io/topology": "ring"}


@pytest.mark.parametrize(
    "change", ["gpudetour.io/product=*A100*", "gpudetour.io/product-", "gpudetour.io/topology=numa"]
)
def test_what_a_pod_asked_for_cannot_be_changed(
    stack: Stack, namespace: str, create: Create, change: str
) -> None:
    create(asking("settled", {"nvidia.com/gpu": "1"}, product="*H100*"))

    with pytest.raises(KubectlError, match="create the pod again"):
        stack.cluster.kubectl("annotate", "pod", "settled", "-n", namespace, change, "--overwrite")


def test_other_annotations_of_a_gpu_pod_can_be_changed(
    stack: Stack, namespace: str, create: Create
) -> None:
    create(asking("noted", {"nvidia.com/gpu": "1"}, product="*H100*"))

    stack.cluster.kubectl("annotate", "pod", "noted", "-n", namespace, "example.com/note=x")


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
