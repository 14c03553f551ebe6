"""A real node changes its path only when nobody is hurt by it."""

from __future__ import annotations

import pytest

from localcluster.foreignplugin import Foreign
from localcluster.waiting import until
from tests.node.gpu_node import (
    GPU,
    NODE,
    PATIENCE,
    GpuNode,
    Object,
    annotations_of,
    condition,
    containers,
)
from tests.node.transitions import PROMISED

pytestmark = pytest.mark.node

WISH = {"gpudetour.io/path": "annotation"}
NO_WISH = {"gpudetour.io/path": None}
_SLICES = "/apis/resource.k8s.io/v1/resourceslices"


def test_from_our_plugin_to_annotations_and_back(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(2)
    gpu_node.create_pod("old")
    before = containers(gpu_node.running("old"))

    gpu_node.label(WISH)
    node = gpu_node.path_is("draining", "Draining")
    assert "1 pod still hold" in annotations_of(node)["gpudetour.io/path-reason"]
    assert condition(node)["status"] == "False"
    assert containers(gpu_node.running("old")) == before
    gpu_node.delete_pod("old")
    gpu_node.path_is("settling", "Settling")
    # Kubelet would write the resource back for five minutes; an empty node need not wait.
    gpu_node.forget_plugins()
    node = gpu_node.path_is("annotation", "Annotations")
    assert GPU not in node["status"]["capacity"]

    device = gpu_node.machine.uuids[0]
    gpu_node.create_pod("placed", devices=[device])
    placed = containers(gpu_node.running("placed"))
    gpu_node.cluster.node.restart_kubelet()
    gpu_node.path_is("annotation", "Annotations")
    assert containers(gpu_node.running("placed")) == placed

    gpu_node.label(NO_WISH)
    gpu_node.path_is("draining", "Draining")
    assert not list(gpu_node.plugins.glob("gpudetour-*"))
    gpu_node.delete_pod("placed")
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(2)


def test_a_foreign_plugin_beside_annotation_pods_drains_the_node(gpu_node: GpuNode) -> None:
    gpu_node.label(WISH)
    gpu_node.start_agent()
    gpu_node.path_is("annotation", "Annotations")
    gpu_node.create_pod("placed", devices=[gpu_node.machine.uuids[0]])
    with Foreign(gpu_node.plugins, sorted(gpu_node.uuids)):
        node = gpu_node.path_is("draining", "Draining")
        assert "another device plugin" in annotations_of(node)["gpudetour.io/path-reason"]
        gpu_node.delete_pod("placed")
        gpu_node.path_is("plugin", "OtherDevicePlugin")


def test_a_zero_left_by_a_plugin_is_removed_once_kubelet_forgot_it(gpu_node: GpuNode) -> None:
    with Foreign(gpu_node.plugins, sorted(gpu_node.uuids)):
        gpu_node.offers(2)
    gpu_node.offers(0)
    gpu_node.label(WISH)
    gpu_node.start_agent()
    gpu_node.path_is("settling", "Settling")
    gpu_node.forget_plugins()
    gpu_node.path_is("annotation", "Annotations")
    gpu_node.offers(None)
    # It stays away, also after kubelet restarts, and a pod that asks for a GPU is admitted.
    gpu_node.cluster.node.restart_kubelet()
    gpu_node.offers(None)
    gpu_node.create_pod("one", devices=[gpu_node.machine.uuids[0]])
    gpu_node.running("one")


def test_it_leaves_the_node_to_dra_once_no_pod_needs_it_and_comes_back(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(2)
    gpu_node.create_pod("old")
    before = containers(gpu_node.running("old"))

    gpu_node.cluster.api.create(_SLICES, _slice())
    node = gpu_node.path_is("draining", "Draining")
    assert "gpu.nvidia.com" in annotations_of(node)["gpudetour.io/path-reason"]
    assert containers(gpu_node.running("old")) == before
    gpu_node.delete_pod("old")
    node = gpu_node.path_is("settling", "DynamicResourceAllocation")
    assert "gpu.nvidia.com" in annotations_of(node)["gpudetour.io/path-reason"]
    assert condition(node)["status"] == "True"
    gpu_node.offers(0)
    # Its streams end first.
    ours = gpu_node.plugins
    until(lambda: not list(ours.glob("gpudetour-*")), timeout=PATIENCE, what="no socket of ours")

    gpu_node.cluster.api.delete(f"{_SLICES}/{NODE}-gpus")
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(2)


def _slice() -> Object:
    """What NVIDIA's DRA driver publishes of this node."""
    return {
        "metadata": {"name": f"{NODE}-gpus"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": NODE,
            "pool": {"name": NODE, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}],
        },
    }


def test_what_somebody_edits_by_hand_is_put_right(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(2)
    gpu_node.create_pod("one")
    before = containers(gpu_node.running("one"))
    node = gpu_node.node_when(lambda node: "gpudetour.io/in-use" in annotations_of(node))
    right = ours(node)
    names = [name for name in right if name.startswith("gpudetour.io/")]
    for spoilt in (None, "{", "annotation"):
        wrong = dict.fromkeys(names, spoilt)
        metadata = {"annotations": wrong, "labels": {"gpudetour.io/gpu": None}}
        gpu_node.cluster.api.patch(f"/api/v1/nodes/{NODE}", {"metadata": metadata})
        gpu_node.node_when(lambda node: ours(node) == right, timeout=PROMISED)
    gpu_node.cluster.api.patch(
        f"/api/v1/nodes/{NODE}/status",
        {"status": {"conditions": [{"type": "GPUPathHealthy", "status": "False"}]}},
    )
    gpu_node.path_is("plugin", "OwnDevicePlugin", timeout=PROMISED)
    gpu_node.node_when(lambda node: condition(node)["status"] == "True", timeout=PROMISED)
    assert containers(gpu_node.running("one")) == before


def ours(node: Object) -> dict[str, str]:
    """What the agent keeps in the metadata of its Node."""
    labels: dict[str, str] = node["metadata"]["labels"]
    kept = {f"label {name}": value for name, value in labels.items() if "gpu" in name}
    return kept | {n: v for n, v in annotations_of(node).items() if n.startswith("gpudetour.io/")}
