"""Pods that cannot be served are refused with every reason at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook.mutating import mutator
from tests.webhook.reviews import pod
from webhook.mutate import Mutated, Refused


def faults(before: Any) -> tuple[str, ...]:
    outcome = mutator().mutate(before)
    assert isinstance(outcome, Refused), outcome
    return outcome.faults


def limits(**named: Any) -> dict[str, Any]:
    return {"limits": {name.replace("__", "/").replace("_", "."): n for name, n in named.items()}}


def test_a_preset_node_is_refused_with_what_to_write_instead() -> None:
    (fault,) = faults(pod(nodeName="n1"))

    assert "spec.nodeName is 'n1'" in fault
    assert "spec.nodeSelector {kubernetes.io/hostname: n1}" in fault


def test_a_contradicting_node_selector_is_refused() -> None:
    (fault,) = faults(pod(nodeSelector={"gpudetour.io/gpu": "false"}))

    assert "gpudetour.io/gpu: 'false'" in fault


@pytest.mark.parametrize("count", ["1.5", "500m", "-1", "many", "", 10**18, "5000", 0.5, "1e30"])
def test_a_count_that_no_node_can_serve_is_refused(count: Any) -> None:
    containers = [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": count}}}]
    (fault,) = faults(pod(containers=containers))

    assert fault.startswith("container 'main', nvidia.com/gpu: ")


def test_every_fault_is_named_at_once() -> None:
    bad = {"limits": {"nvidia.com/gpu": "x", "gpudetour.io/gpu-memory": "8Gi"}}
    found = faults(
        pod(
            initContainers=[{"name": "warm", "resources": {"limits": {"nvidia.com/gpu": "-1"}}}],
            containers=[{"name": "main", "resources": bad}],
            nodeName="n1",
            nodeSelector={"gpudetour.io/gpu": "no"},
        )
    )

    assert len(found) == 5


def test_faults_of_wishes_are_named_with_all_others_even_where_a_node_is_preset() -> None:
    before = pod(nodeName="n1")
    before["metadata"]["annotations"] = {
        "gpudetour.io/min-memory": "40",
        "gpudetour.io/topology": "ring",
        "gpudetour.io/products": "*H100*",
    }

    found = faults(before)

    assert [" ".join(fault.split()[:2]) for fault in found] == [
        "annotation gpudetour.io/min-memory:",
        "annotation gpudetour.io/topology:",
        "annotation gpudetour.io/products",
        "spec.nodeName is",
    ]


def test_a_misspelt_resource_of_ours_is_refused_though_no_gpu_is_asked_for() -> None:
    containers = [{"name": "main", "resources": {"limits": {"gpudetour.io/gpumemory": "8Gi"}}}]
    (fault,) = faults(pod(containers=containers))

    assert fault.endswith("write gpudetour.io/gpu-memory")


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        {"containers": None},
        {"containers": {}},
        {"containers": ["main"]},
        {"containers": [{"image": "no name"}]},
        {"containers": [{"name": "a", "env": {}}]},
        {"containers": [{"name": "a", "env": [None]}]},
        {"containers": [{"name": "a", "env": [{"value": "no name"}]}]},
        {"containers": [{"name": "a", "resources": []}]},
        {"containers": [], "nodeSelector": []},
        {"containers": [], "nodeSelector": {"a": 1}},
        {"containers": [], "tolerations": {}},
        {"containers": [], "runtimeClassName": 7},
        {"containers": [], "nodeName": {}},
    ],
)
def test_what_is_not_a_pod_is_refused(spec: Any) -> None:
    (fault,) = faults({"metadata": {}, "spec": spec})

    assert fault.startswith("the pod cannot be read: ")


@pytest.mark.parametrize("metadata", [[], {"labels": []}, {"annotations": {"a": 1}}, None])
def test_metadata_that_is_none_is_refused(metadata: Any) -> None:
    before = pod()
    before["metadata"] = metadata

    assert len(faults(before)) == 1


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"os": {"name": "windows"}}, "the pod is for Windows"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "the pod is for Windows"),
        ({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}, "the pod is for Windows"),
        (
            {"resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "1"}}},
            "spec.resources has nvidia.com/gpu, but a pod as a whole cannot ask for GPUs",
        ),
        ({"ephemeralContainers": [{"name": "x"}]}, "use `kubectl debug` when the pod runs"),
    ],
)
def test_what_no_gpu_pod_can_be_is_refused(spec: dict[str, Any], told: str) -> None:
    (fault,) = faults(pod(**spec))

    assert told in fault


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"requests": {"nvidia.com/gpu": "1"}}, "it is under requests only; write it under limits"),
        (
            {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": 2}},
            "requests 1 and limits 2 differ; write it under limits only",
        ),
        (
            {
                "requests": {"gpudetour.io/gpu-memory": 8 << 30},
                "limits": {"gpudetour.io/gpu-memory": "9Gi"},
            },
            "requests 8589934592 and limits 9Gi differ",
        ),
        (
            {"requests": {"nvidia.com/gpu": "many"}, "limits": {"nvidia.com/gpu": "1"}},
            "requests many and limits 1 differ",
        ),
        (
            {"requests": {"nvidia.com/gpu": 10**5000}, "limits": {"nvidia.com/gpu": "1"}},
            "requests more than there can be and limits 1 differ",
        ),
    ],
)
def test_requests_that_are_not_the_limits_are_refused(resources: Any, told: str) -> None:
    (fault,) = faults(pod(containers=[{"name": "main", "resources": resources}]))

    assert fault.startswith("container 'main', ")
    assert told in fault


@pytest.mark.parametrize(
    ("request_", "limit"), [("1", 1), ("2", "2.0"), (1, "1000m"), ("8Gi", 8 << 30)]
)
def test_requests_that_only_look_different_are_taken(request_: Any, limit: Any) -> None:
    name = "gpudetour.io/gpu-memory" if request_ == "8Gi" else "nvidia.com/gpu"
    resources = {"requests": {name: request_}, "limits": {name: limit}}

    assert isinstance(
        mutator().mutate(pod(containers=[{"name": "main", "resources": resources}])), Mutated
    )


def required(*terms: list[dict[str, Any]] | None) -> dict[str, Any]:
    selector = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


def other_than_true(operator: str, *values: str) -> dict[str, Any]:
    named = {"values": list(values)} if values else {}
    return {"key": "gpudetour.io/gpu", "operator": operator, **named}


ZONE = {"key": "zone", "operator": "In", "values": ["a"]}


@pytest.mark.parametrize(
    "affinity",
    [
        required([other_than_true("NotIn", "true")]),
        required([other_than_true("In", "false", "no")]),
        required([ZONE, other_than_true("DoesNotExist")]),
        required([other_than_true("DoesNotExist")], [ZONE, other_than_true("NotIn", "true")]),
    ],
)
def test_an_affinity_that_shuns_every_node_with_gpus_is_refused(affinity: Any) -> None:
    (fault,) = faults(pod(affinity=affinity))

    assert fault.startswith("spec.affinity.nodeAffinity requires gpudetour.io/gpu")


@pytest.mark.parametrize(
    "affinity",
    [
        {},
        {"nodeAffinity": None},
        {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}},
        required(),
        required(None),
        required([ZONE]),
        required([other_than_true("Exists")]),
        required([other_than_true("In", "true", "x")]),
        required([other_than_true("NotIn", "false")]),
        required([other_than_true("Gt", "1")]),
        required([other_than_true("DoesNotExist")], [ZONE]),
    ],
)
def test_any_other_affinity_is_taken(affinity: Any) -> None:
    assert isinstance(mutator().mutate(pod(affinity=affinity)), Mutated)


@pytest.mark.parametrize(
    "path",
    [
        "/var/run/nvidia-container-devices/all",
        "/var/run/nvidia-container-devices",
        "/var/run//nvidia-container-devices/../nvidia-container-devices/GPU-a",
        "//var/./run/nvidia-container-devices-x",
        "var/run/nvidia-container-devices/0",
    ],
)
@pytest.mark.parametrize("field", ["initContainers", "containers"])
@pytest.mark.parametrize("way", ["mutate", "runtime", "close"])
def test_a_mount_that_stands_for_a_device_is_refused(path: str, field: str, way: str) -> None:
    asks = {"limits": {"nvidia.com/gpu": "1"}} if way == "mutate" else {}
    mounting = {"name": "m", "volumeMounts": [{"name": "v", "mountPath": path}], "resources": asks}
    spec = {"containers": [{"name": "main", "resources": asks}], field: [mounting]}
    before = pod(**spec, **({"runtimeClassName": "nvidia"} if way == "runtime" else {}))

    outcome = mutator().close(before) if way == "close" else mutator().mutate(before)

    assert isinstance(outcome, Refused)
    (fault,) = outcome.faults
    assert fault.startswith("container 'm' mounts a volume at /var/run/nvidia-container-devices")


def test_a_wish_that_is_written_as_a_label_is_refused() -> None:
    before = pod()
    before["metadata"]["labels"] = {"gpudetour.io/product": "H100", "gpudetour.io/team": "x"}

    assert faults(before) == (
        "label gpudetour.io/product is not read; write it under metadata.annotations",
    )
