"""Every kind of pod and of container on a real API server, with what is shipped."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from localcluster.api import ApiError
from localcluster.cluster import KubectlError
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Create, Object, PodWhen, annotations_of, bound, gpu_pod, plain_pod

pytestmark = pytest.mark.controlplane

VOID = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
ALL = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}


def devices(pod: Object, container: str) -> Object:
    """The entry of a container that gets GPUs."""
    name = annotations_of(pod)["gpudetour.io/devices-from"]
    key = {"name": name, "key": container, "optional": True}
    return {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"configMapKeyRef": key}}


def container(name: str, **fields: Any) -> Object:
    return {"name": name, "image": "gpudetour.local/box:1", **fields}


def workload(kind: str, name: str, **spec: Any) -> Object:
    """A workload whose pods each ask for one GPU."""
    template = {"metadata": {"labels": {"app": name}}, "spec": gpu_pod(name)["spec"]}
    if kind == "Job":
        template["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = {"matchLabels": {"app": name}}
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


def made_by(stack: Stack, namespace: str, app: str, *, count: int) -> list[Object]:
    """The pods that a controller has made, when it has made all of them."""
    path = f"/api/v1/namespaces/{namespace}/pods"

    def found() -> list[Object] | None:
        items: list[Object] = stack.cluster.api.get(path, labelSelector=f"app={app}")["items"]
        return items if len(items) == count else None

    return until(found, timeout=60, what=f"{count} pods of {app}")


@pytest.mark.parametrize(
    ("kind", "spec", "count"),
    [
        ("Deployment", {"replicas": 2}, 2),
        ("StatefulSet", {"replicas": 1, "serviceName": "x"}, 1),
        ("DaemonSet", {}, 5),
        ("Job", {"parallelism": 2, "completions": 2}, 2),
    ],
)
def test_pods_that_controllers_make_are_served_like_others(
    stack: Stack, namespace: str, kind: str, spec: Object, count: int
) -> None:
    made = workload(kind, kind.lower(), **spec)
    group = made["apiVersion"]
    stack.cluster.api.create(f"/apis/{group}/namespaces/{namespace}/{kind.lower()}s", made)

    pods = made_by(stack, namespace, kind.lower(), count=count)

    assert len({annotations_of(pod)["gpudetour.io/devices-from"] for pod in pods}) == count
    for pod in pods:
        assert pod["metadata"]["ownerReferences"][0]["controller"] is True
        assert pod["metadata"]["labels"]["gpudetour.io/gpu"] == "true"
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        assert pod["spec"]["nodeSelector"] == {"gpudetour.io/gpu": "true"}
        assert pod["spec"]["containers"][0]["env"] == [devices(pod, "main")]


def test_why_a_template_is_refused_is_told_where_its_owner_looks(
    stack: Stack, namespace: str
) -> None:
    made = workload("Deployment", "wrong", replicas=1)
    made["spec"]["template"]["spec"]["nodeName"] = "node-0"
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    stack.cluster.api.create(path, made)

    def told(deployment: Object) -> bool:
        conditions = deployment.get("status", {}).get("conditions") or ()
        return any(
            condition["type"] == "ReplicaFailure" and "spec.nodeName" in condition["message"]
            for condition in conditions
        )

    stack.cluster.wait_for(f"{path}/wrong", told, timeout=60)


def test_pods_of_generated_names_get_different_config_maps(create: Create) -> None:
    pod = gpu_pod("x")
    pod["metadata"] = {"generateName": "train-"}

    first, second = create(copy.deepcopy(pod)), create(copy.deepcopy(pod))

    assert first["metadata"]["name"].startswith("train-")
    assert annotations_of(first) != annotations_of(second)


def test_a_dry_run_shows_what_would_be_stored_and_stores_nothing(
    stack: Stack, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"

    shown = stack.cluster.api.create(f"{path}?dryRun=All", gpu_pod("tried"))

    assert shown["spec"]["containers"][0]["env"] == [devices(shown, "main")]
    assert stack.cluster.api.get(path)["items"] == []


def test_a_pod_that_is_created_from_a_stored_one_is_served_once(
    stack: Stack, namespace: str, create: Create
) -> None:
    stored = create(gpu_pod("first"))
    again = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "second",
            "namespace": namespace,
            "labels": stored["metadata"]["labels"],
            # As if the first had been placed.
            "annotations": {**annotations_of(stored), "gpudetour.io/assigned": "{}"},
        },
        "spec": {key: value for key, value in stored["spec"].items() if key != "nodeName"},
    }

    said = stack.cluster.kubectl("create", "-f", "-", check=False, stdin=json.dumps(again))

    assert re.findall("Warning: (.*)", said) == [
        "annotation gpudetour.io/assigned was removed: only the scheduler's extender sets it"
    ]
    second = stack.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/second")
    name = "gpudetour.io/devices-from"
    assert annotations_of(second)[name] != annotations_of(stored)[name]
    # It may have been placed since, but not with what it brought along.
    assert annotations_of(second).get("gpudetour.io/assigned") != "{}"
    assert second["spec"]["containers"][0]["env"] == [devices(second, "main")]
    assert second["spec"]["nodeSelector"] == stored["spec"]["nodeSelector"]
    assert second["spec"]["tolerations"] == stored["spec"]["tolerations"]


@pytest.mark.parametrize("kept", ["true", "false"])
def test_a_copy_that_kubectl_debug_makes_of_a_placed_pod_gets_gpus_of_its_own(
    stack: Stack, namespace: str, create: Create, pod_when: PodWhen, kept: str
) -> None:
    create(gpu_pod("original"))
    original = pod_when("original", bound)

    said = stack.cluster.kubectl(
        *("debug", "original", "-n", namespace, "--copy-to=copy", "--profile=general"),
        *("--container=extra", "--image=gpudetour.local/box:1", f"--keep-annotations={kept}"),
        check=False,
    )

    copied = pod_when("copy", bound)
    assert ("annotation gpudetour.io/assigned was removed" in said) is (kept == "true")
    assert "NVIDIA_VISIBLE_DEVICES" not in said
    entries = {one["name"]: one["env"][-1] for one in copied["spec"]["containers"]}
    assert entries == {"main": devices(copied, "main"), "extra": VOID}
    names = [annotations_of(pod)["gpudetour.io/devices-from"] for pod in (original, copied)]
    assert len(set(names)) == 2
    uuids = [
        re.findall("GPU-[0-9a-f-]+", annotations_of(pod)["gpudetour.io/assigned"])
        for pod in (original, copied)
    ]
    assert len({uuid for found in uuids for uuid in found}) == 2


def test_all_kinds_of_containers_end_with_one_word_on_devices(create: Create) -> None:
    asks = {"limits": {"nvidia.com/gpu": "1"}}
    pod = plain_pod("mixed")
    pod["spec"]["initContainers"] = [
        container("first", resources=asks, env=[ALL, {"name": "A", "value": "1"}]),
        container("beside", restartPolicy="Always", env=[ALL, ALL]),
    ]
    pod["spec"]["containers"] = [
        container("main", resources=asks, envFrom=[{"configMapRef": {"name": "x"}}]),
        container("second", resources=asks),
        container("proxy", env=[{"name": "NVIDIA_IMEX_CHANNELS", "value": "0"}]),
    ]

    stored = create(pod)

    spec = stored["spec"]
    assert {one["name"]: one["env"] for one in (*spec["initContainers"], *spec["containers"])} == {
        "first": [{"name": "A", "value": "1"}, devices(stored, "first")],
        "beside": [VOID],
        "main": [devices(stored, "main")],
        "second": [devices(stored, "second")],
        "proxy": [VOID],
    }


def test_a_pod_with_500_containers_is_served(stack: Stack, namespace: str) -> None:
    pod = gpu_pod("crowd")
    pod["spec"]["containers"] += [container(f"c{number}") for number in range(499)]

    path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
    shown = stack.cluster.api.create(path, pod)

    main, *others = shown["spec"]["containers"]
    assert main["env"] == [devices(shown, "main")]
    assert [one["env"] for one in others] == [[VOID]] * 499


def test_a_pod_that_loses_very_much_keeps_the_rest(create: Create) -> None:
    pod = gpu_pod("grabbing")
    field = {"apiVersion": "v1", "fieldPath": "metadata.name"}
    kept: Object = {"name": "A", "valueFrom": {"fieldRef": field}}
    pod["spec"]["containers"][0]["env"] = [*([ALL] * 20), kept, *([ALL] * 20)]
    pod["metadata"]["annotations"] = {f"cdi.k8s.io/{n}": "nvidia.com/gpu=all" for n in range(40)}
    pod["metadata"]["annotations"]["team"] = "x"

    stored = create(pod)

    assert stored["spec"]["containers"][0]["env"] == [kept, devices(stored, "main")]
    assert annotations_of(stored).keys() == {"team", "gpudetour.io/devices-from"}


def test_a_pod_for_windows_that_asks_for_gpus_is_refused(create: Create) -> None:
    pod = gpu_pod("windows")
    pod["spec"]["os"] = {"name": "windows"}

    with pytest.raises(ApiError, match="GPUs are served on Linux nodes only"):
        create(pod)


def test_a_pod_for_windows_without_gpus_is_left_alone(create: Create) -> None:
    pod = plain_pod("windows")
    pod["spec"] |= {"os": {"name": "windows"}, "runtimeClassName": "nvidia"}

    stored = create(pod)

    assert "env" not in stored["spec"]["containers"][0]
    assert "nodeSelector" not in stored["spec"]


def test_requests_that_are_not_the_limits_are_refused_with_all_else_that_is_wrong(
    create: Create,
) -> None:
    pod = gpu_pod("uneven")
    pod["spec"]["containers"] = [
        container("a", resources={"requests": {"nvidia.com/gpu": "1"}}),
        container(
            "b", resources={"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}
        ),
    ]
    pod["spec"]["nodeSelector"] = {"gpudetour.io/gpu": "false"}
    pod["metadata"]["labels"] = {"gpudetour.io/product": "H100"}

    with pytest.raises(ApiError) as refused:
        create(pod)

    for told in (
        "container 'a', nvidia.com/gpu: it is under requests only; write it under limits",
        "container 'b', nvidia.com/gpu: requests 1 and limits 2 differ",
        "spec.nodeSelector has gpudetour.io/gpu: 'false'",
        "label gpudetour.io/product is not read",
    ):
        assert told in str(refused.value)


def test_devices_by_annotation_are_dropped_and_devices_by_mount_refused(
    stack: Stack, namespace: str, create: Create
) -> None:
    pod = gpu_pod("crafty")
    pod["metadata"] |= {
        "namespace": namespace,
        "annotations": {
            "cdi.k8s.io/x": "nvidia.com/gpu=all",
            "nvidia.cdi.k8s.io/pod": "nvidia.com/gpu=all",
        },
    }
    said = stack.cluster.kubectl("create", "-f", "-", check=False, stdin=json.dumps(pod))
    stored = stack.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/crafty")

    assert len(re.findall("Warning: annotation (.*) was removed", said)) == 2
    assert not [key for key in annotations_of(stored) if "cdi.k8s.io/" in key]

    mounting = gpu_pod("mounting")
    mounting["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    path = "var/run/./nvidia-container-devices/GPU-0"
    mounting["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": path}]
    with pytest.raises(ApiError, match="container 'main' mounts a volume at /var/run/nvidia-cont"):
        create(mounting)


def test_what_is_stored_of_a_gpu_pod_cannot_be_made_to_show_more(
    stack: Stack, namespace: str, create: Create
) -> None:
    """The API server itself keeps the environment of containers, so we need not be asked."""
    create(gpu_pod("settled"))
    change = [{"op": "replace", "path": "/spec/containers/0/env", "value": [ALL]}]

    with pytest.raises(KubectlError, match="pod updates may not change fields"):
        stack.cluster.kubectl(
            *("patch", "pod", "settled", "-n", namespace, "--type=json"),
            f"--patch={json.dumps(change)}",
        )


def test_what_the_runtime_class_demands_is_demanded_of_pods_that_we_give_it(
    stack: Stack, namespace: str
) -> None:
    """Its overhead and its nodes: the API server looks at the class once more after our change."""
    api = stack.cluster.api
    path = "/apis/node.k8s.io/v1/runtimeclasses/nvidia"
    demands: Object = {
        "overhead": {"podFixed": {"memory": "16Mi"}},
        "scheduling": {
            "nodeSelector": {"example.com/nvidia": "yes"},
            "tolerations": [{"key": "example.com/nvidia", "operator": "Exists"}],
        },
    }

    def shown() -> Object | None:
        pod = api.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", gpu_pod("heavy"))
        return pod["spec"] if pod["spec"].get("overhead") else None

    try:
        api.patch(path, demands)
        spec = until(shown, timeout=30, what="the overhead of the RuntimeClass")
    finally:
        api.patch(path, {"overhead": None, "scheduling": None})
        until(lambda: shown() is None, timeout=30, what="the RuntimeClass as it was")

    assert spec["overhead"] == {"memory": "16Mi"}
    assert spec["nodeSelector"] == {"gpudetour.io/gpu": "true", "example.com/nvidia": "yes"}
    keys = [toleration.get("key") for toleration in spec["tolerations"]]
    assert {"nvidia.com/gpu", "example.com/nvidia"} <= set(keys)
