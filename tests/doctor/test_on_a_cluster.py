"""The doctor on a real control plane, as a person calls it for a node elsewhere."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from cli.__main__ import main
from localcluster.cluster import LocalCluster
from localcluster.simulated import NodeTemplate
from tests.doctor.clusters import CHART_TERMS
from tests.doctor.errors import PRINTED_CONFIG

pytestmark = pytest.mark.controlplane

_LABEL = "doctor.test/node"


class Patient:
    """A node of a cluster, with a namespace of its own for the plugin."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.name = f"doctor-{uuid.uuid4().hex[:6]}"
        self.namespace = self.name
        cluster.create_simulated_nodes(
            [self.name],
            NodeTemplate(
                capacity={"cpu": "8", "memory": "16Gi", "pods": "10", "nvidia.com/gpu": "0"},
                labels={_LABEL: self.name, "nvidia.com/gpu.present": "true"},
            ),
        )
        cluster.apply(
            [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
                {
                    "apiVersion": "node.k8s.io/v1",
                    "kind": "RuntimeClass",
                    "metadata": {"name": self.name},
                    "handler": "nvidia",
                },
            ]
        )

    def plugin(self, spec: dict[str, Any], container: dict[str, Any], *, wanted: int = 1) -> None:
        """Deploy NVIDIA's plugin for this node; returns when the controller has seen both, and
        wants so many pods.
        """
        image = "nvcr.io/nvidia/k8s-device-plugin:v0.17.4"
        labels = {"app": "nvdp"}
        template = {
            "metadata": {"labels": labels},
            "spec": {
                "nodeSelector": {_LABEL: self.name},
                "automountServiceAccountToken": False,
                "runtimeClassName": self.name,
                "containers": [{"name": "plugin", "image": image, **container}],
                **spec,
            },
        }
        self.cluster.apply(
            [
                {
                    "apiVersion": "apps/v1",
                    "kind": "DaemonSet",
                    "metadata": {"name": "nvdp", "namespace": self.namespace},
                    "spec": {"selector": {"matchLabels": labels}, "template": template},
                }
            ]
        )
        self.cluster.wait_for(
            f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/nvdp",
            lambda found: (
                found["status"].get("observedGeneration") == 1
                and found["status"]["desiredNumberScheduled"] == wanted
            ),
            timeout=60,
        )

    def config(self, text: str) -> None:
        self.cluster.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "nvdp", "namespace": self.namespace},
                    "data": {"config.yaml": text},
                }
            ]
        )

    def examine(self) -> dict[str, Any]:
        kubeconfig = str(self.cluster.admin_kubeconfig)
        command = ["--kubeconfig", kubeconfig, "doctor", "--node", self.name, "-o", "json"]
        result = CliRunner().invoke(main, command)
        report: dict[str, Any] = json.loads(result.stdout)
        assert result.exit_code == int(report["broken"])
        return report


@pytest.fixture
def patient(control_plane: LocalCluster) -> Iterator[Patient]:
    patient = Patient(control_plane)
    yield patient
    # At once, unlike what goes with its namespace: it would be told to the next patient.
    control_plane.kubectl(
        "delete", "daemonsets", "--all", f"--namespace={patient.namespace}", "--timeout=60s"
    )
    for path in (
        f"/api/v1/nodes/{patient.name}",
        f"/api/v1/namespaces/{patient.namespace}",
        f"/apis/node.k8s.io/v1/runtimeclasses/{patient.name}",
    ):
        control_plane.api.delete(path)


def broken(report: dict[str, Any]) -> dict[str, Any]:
    return {f["id"]: f for f in report["findings"] if f["outcome"] == "broken"}


def test_a_zero_with_nobody_behind_it(patient: Patient) -> None:
    report = patient.examine()

    assert report["node"] == patient.name
    zero = broken(report)["stale-zero"]
    assert zero["because_of"] == []
    assert broken(report)["gpu-advertised"]["because_of"] == ["stale-zero"]


def test_its_command_removes_the_zero(patient: Patient) -> None:
    (command,) = (c for c in broken(patient.examine())["stale-zero"]["mend"] if c[0] != "#")

    # As it stands, but for the program's own path and kubeconfig.
    words = command.split(" ", 2)
    assert words[:2] == ["kubectl", "patch"]
    patch = command.partition("-p '")[2].rstrip("'")
    patient.cluster.kubectl(
        "patch", "node", patient.name, "--subresource=status", "--type=json", "-p", patch
    )

    assert "stale-zero" not in broken(patient.examine())


def test_a_config_that_the_plugin_cannot_read(patient: Patient) -> None:
    patient.config(PRINTED_CONFIG)
    patient.plugin(
        {"volumes": [{"name": "config", "configMap": {"name": "nvdp"}}]},
        {"args": ["--config-file=/config/config.yaml", "--device-list-strategy=nvml"]},
    )

    report = patient.examine()

    causes = [
        f["id"] for f in report["findings"] if f["id"] in broken(report) and not f["because_of"]
    ]
    assert causes == ["plugin-list-strategy", "plugin-config"]
    assert "no resources specified" in broken(report)["plugin-config"]["saw"]
    assert set(broken(report)["stale-zero"]["because_of"]) == set(causes)


def test_labels_that_the_chart_wants_and_nobody_writes(patient: Patient) -> None:
    patient.cluster.kubectl("label", "node", patient.name, "nvidia.com/gpu.present-")
    patient.cluster.kubectl(
        "label", "node", patient.name, "feature.node.kubernetes.io/pci-0300_10de.present=true"
    )
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": CHART_TERMS}}
    patient.plugin({"affinity": {"nodeAffinity": rule}}, {}, wanted=0)

    found = broken(patient.examine())["plugin-affinity"]

    assert "(on 0 nodes)" in found["saw"]
    assert "pci-10de.present=true" in found["saw"]
    assert found["mend"][0] == f"kubectl label node {patient.name} nvidia.com/gpu.present=true"


def test_a_node_that_is_not_there(control_plane: LocalCluster) -> None:
    kubeconfig = str(control_plane.admin_kubeconfig)

    result = CliRunner().invoke(main, ["--kubeconfig", kubeconfig, "doctor", "--node", "nobody"])

    assert result.exit_code == 2
    assert "no node nobody" in result.output


def test_somebody_without_rights_is_told_so(control_plane: LocalCluster) -> None:
    kubeconfig = str(control_plane.kubeconfig_for("nobody-special"))

    result = CliRunner().invoke(main, ["--kubeconfig", kubeconfig, "doctor", "--node", "any"])

    assert result.exit_code == 2
    assert "forbidden" in result.output.lower()
