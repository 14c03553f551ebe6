"""The doctor is quiet where nothing is wrong: no false alarm on any distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.checks.catalogue import CHECKS
from doctor.diagnosis import Diagnosis, diagnose
from doctor.facts.facts import Facts
from doctor.facts.host import Nvml
from doctor.findings import Outcome
from tests.doctor.clusters import cluster, plugin
from tests.doctor.nodes import HEALTHY, PLUGINS, NodeTree, kubeadm, with_driver, with_gpu

REGISTERED = (
    "I1218 main.go:356] Retrieving plugins.\n"
    "I1218 server.go:197] Starting GRPC server for 'nvidia.com/gpu'\n"
    "I1218 server.go:148] Registered device plugin for 'nvidia.com/gpu' with Kubelet\n"
)


def complaints(diagnosis: Diagnosis) -> list[str]:
    told = diagnosis.of(Outcome.BROKEN, Outcome.WARNING, Outcome.UNKNOWN)
    return [f"{found.check.id}: {found.result.saw}" for found in told]


@pytest.mark.parametrize("name", [name for name in HEALTHY if name != "talos"])
def test_a_healthy_node_raises_no_alarm(name: str, tmp_path: Path) -> None:
    assert complaints(HEALTHY[name](tmp_path).diagnosis()) == []


def test_talos_has_no_package_database_to_tell_the_toolkits_version(tmp_path: Path) -> None:
    diagnosis = HEALTHY["talos"](tmp_path).diagnosis()

    assert not diagnosis.is_broken
    assert [each.partition(":")[0] for each in complaints(diagnosis)] == ["toolkit-version"]


@pytest.mark.parametrize("name", ["k3s", "kubeadm"])
def test_a_healthy_node_with_its_cluster_and_its_plugins_log(name: str, tmp_path: Path) -> None:
    diagnosis = HEALTHY[name](tmp_path).diagnosis(cluster=cluster(plugin()), log=REGISTERED)

    assert complaints(diagnosis) == []
    assert len(diagnosis.of(Outcome.OK)) >= 60


def test_a_healthy_node_seen_through_the_api_only() -> None:
    seen = diagnose(Facts(cluster=cluster(plugin()), plugin_log=REGISTERED), CHECKS)

    assert complaints(seen) == []


def test_a_node_without_gpu_has_nothing_to_mend(tmp_path: Path) -> None:
    node = NodeTree(tmp_path).write("sys/bus/pci/devices/0000:00:01.0/vendor", "0x8086\n")

    diagnosis = node.diagnosis()

    assert complaints(diagnosis) == []
    assert {f.result.outcome for f in diagnosis.findings} == {Outcome.NOT_APPLICABLE}


def test_a_fault_that_the_plugin_got_over_is_history(tmp_path: Path) -> None:
    log = 'error: invalid strategy: "cdi"\nIncompatible strategy detected auto\n' + REGISTERED

    assert complaints(kubeadm(tmp_path).diagnosis(log=log)) == []


def test_gpudetours_own_cdi_needs_neither_toolkit_nor_handler(tmp_path: Path) -> None:
    node = HEALTHY["k3s"](tmp_path)
    node.remove("usr/bin/nvidia-container-runtime", "usr/bin/nvidia-ctk", "usr/bin/nvidia-cdi-hook")
    node.edit("var/lib/rancher/k3s/agent/etc/containerd/config.toml", "runtimes.nvidia", "x")
    node.write(
        "var/run/cdi/gpudetour.io-gpu.json",
        '{"cdiVersion": "0.5.0", "kind": "gpudetour.io/gpu", "devices": [{"name": "GPU-1"}]}',
    )

    assert complaints(node.diagnosis()) == []


@pytest.mark.parametrize(
    "socket", ["gpu.intel.com-i915.sock", "amd.com_gpu", "nvidia-gpu.shared.sock"]
)
def test_plugins_of_other_resources_are_no_rivals(socket: str, tmp_path: Path) -> None:
    node = kubeadm(tmp_path).write(f"{PLUGINS}/{socket}")

    assert complaints(node.diagnosis()) == []


def test_a_machine_that_is_no_node_yet_lacks_only_the_toolkit(tmp_path: Path) -> None:
    node = with_gpu(with_driver(NodeTree(tmp_path))).answers(Nvml(gpus=1))

    diagnosis = node.diagnosis()

    assert [found.check.id for found in diagnosis.of(Outcome.BROKEN)] == ["toolkit-installed"]


def test_a_plugin_that_offers_gpus_needs_no_advice_on_its_runtime_class(tmp_path: Path) -> None:
    diagnosis = kubeadm(tmp_path).diagnosis(cluster=cluster(plugin(runtime_class="")))

    assert complaints(diagnosis) == []
