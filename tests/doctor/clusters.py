"""What the API server says of a node and of NVIDIA's plugin, for tests to break one thing in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from doctor.affinity import Selection, mismatch
from doctor.facts.cluster import Cluster, Plugin, PluginPod
from kube.objects import NodeCondition

#: Required affinity of the plugin's chart (k8s-device-plugin deployments/helm, values.yaml).
CHART_TERMS = [
    {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
    for key, value in (
        ("feature.node.kubernetes.io/pci-10de.present", "true"),
        ("feature.node.kubernetes.io/cpu-model.vendor_id", "NVIDIA"),
        ("nvidia.com/gpu.present", "true"),
    )
]


def plugin(**changes: Any) -> Plugin:
    """NVIDIA's plugin as it works."""
    whole = Plugin(
        name="kube-system/nvidia-device-plugin-daemonset",
        image="nvcr.io/nvidia/k8s-device-plugin:v0.17.4",
        version=(0, 17, 4),
        runtime_class="nvidia",
        desired=1,
        pod=PluginPod(name="nvidia-device-plugin-x", phase="Running", ready=True),
    )
    return replace(whole, **changes)


def cluster(*plugins: Plugin, **changes: Any) -> Cluster:
    """A node that offers one GPU, with its runtime class and these plugins."""
    whole = Cluster(
        was_read=True,
        node="n1",
        capacity={"cpu": "8", "nvidia.com/gpu": "1"},
        allocatable={"cpu": "8", "nvidia.com/gpu": "1"},
        conditions=(NodeCondition(type="Ready", status="True"),),
        runtime_version="containerd://2.1.5",
        runtime_classes={"nvidia": "nvidia"},
        plugins=plugins,
    )
    return replace(whole, **changes)


def silent(*plugins: Plugin, **changes: Any) -> Cluster:
    """The same node where nothing was ever offered."""
    return cluster(*plugins, capacity={"cpu": "8"}, allocatable={"cpu": "8"}, **changes)


def unlabelled() -> str:
    """Why the chart's plugin leaves out a node that only has stock labels."""
    labels = {"feature.node.kubernetes.io/pci-0300_10de.present": "true"}
    return mismatch(Selection(terms=CHART_TERMS), labels, node="n1")
