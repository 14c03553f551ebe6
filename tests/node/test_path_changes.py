"""A real node changes its path only when nobody is hurt by it."""

from __future__ import annotations

import pytest

from localcluster.foreignplugin import Foreign
from tests.node.gpu_node import GPU, GpuNode, annotations_of, condition, containers

pytestmark = pytest.mark.node

WISH = {"gpudetour.io/path": "annotation"}
NO_WISH = {"gpudetour.io/path": None}


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
