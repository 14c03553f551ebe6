"""Pods that cannot be served are refused with every reason at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook.mutating import mutator
from tests.webhook.reviews import pod
from webhook.mutate import Refused


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
