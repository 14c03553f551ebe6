"""The six errors that people meet with NVIDIA's plugin, and the other ways in which it is deployed
wrong: known from its log, from its DaemonSet and ConfigMap, and together with the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from doctor.checks.catalogue import CHECKS
from doctor.diagnosis import Diagnosis, diagnose
from doctor.facts.cluster import Cluster, Mount, PluginPod
from doctor.facts.facts import Facts
from doctor.findings import Outcome
from gpus.annotations import INVENTORY, PATH
from kube.objects import NodeCondition
from tests.doctor.clusters import cluster, plugin, silent, unlabelled
from tests.doctor.errors import ERROR_1, ERROR_2, ERROR_3, ERROR_4, ERROR_5, ERROR_6, PRINTED_CONFIG
from tests.doctor.nodes import TOOLKIT_CONFIG, assert_shell, k3s, kubeadm


def broken(diagnosis: Diagnosis) -> list[str]:
    return [found.check.id for found in diagnosis.of(Outcome.BROKEN)]


def through_api(seen: Cluster, log: str | None = None) -> Diagnosis:
    return diagnose(Facts(cluster=seen, plugin_log=log), CHECKS)


def test_error_1_on_its_node_is_the_plugins_missing_runtime_class(tmp_path: Path) -> None:
    seen = silent(plugin(runtime_class=""))

    diagnosis = k3s(tmp_path).diagnosis(cluster=seen, log=ERROR_1)

    assert [found.check.id for found in diagnosis.causes] == ["plugin-runtime-class"]
    assert "default runtime is runc" in diagnosis.causes[0].result.saw
    assert '"runtimeClassName":"nvidia"' in diagnosis.causes[0].result.mend[0]
    assert broken(diagnosis) == [
        "plugin-runtime-class",
        "log-incompatible-strategy",
        "log-no-devices",
        "gpu-advertised",
    ]


def test_error_1_of_0_18_0_is_its_image(tmp_path: Path) -> None:
    image = "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"
    seen = silent(plugin(image=image, version=(0, 18, 0)))

    diagnosis = k3s(tmp_path).diagnosis(cluster=seen, log=ERROR_1)

    assert [found.check.id for found in diagnosis.causes] == ["plugin-version"]
    assert "k8s-device-plugin:v0.18.1" in diagnosis.causes[0].result.mend[0]


def test_error_1_of_a_hardened_toolkit_is_its_setting(tmp_path: Path) -> None:
    node = kubeadm(tmp_path).edit(
        TOOLKIT_CONFIG,
        "supported",
        "accept-nvidia-visible-devices-envvar-when-unprivileged = false\nsupported",
    )

    diagnosis = node.diagnosis(cluster=silent(plugin()), log=ERROR_1)

    assert [found.check.id for found in diagnosis.causes] == ["toolkit-environment"]


def test_a_hardened_toolkit_is_no_fault_where_nobody_uses_the_variable(tmp_path: Path) -> None:
    node = kubeadm(tmp_path).edit(
        TOOLKIT_CONFIG,
        "supported",
        "accept-nvidia-visible-devices-envvar-when-unprivileged = false\nsupported",
    )

    assert not node.diagnosis().is_broken


def test_error_1_is_right_on_a_node_without_gpu(tmp_path: Path) -> None:
    node = kubeadm(tmp_path)
    node.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x8086\n")
    node.remove("proc/driver/nvidia/version")

    assert not node.diagnosis(log=ERROR_1).is_broken


def test_error_2_on_its_node_is_the_missing_runc(tmp_path: Path) -> None:
    diagnosis = k3s(tmp_path).remove("usr/bin/runc").diagnosis(log=ERROR_2)

    assert broken(diagnosis) == ["toolkit-runc", "log-runc"]
    assert diagnosis.consequences[0].because_of == ("toolkit-runc",)


def test_error_3_is_harmless_unless_the_mode_is_cdi(tmp_path: Path) -> None:
    node = k3s(tmp_path)

    assert not node.diagnosis(log=ERROR_3).is_broken
    assert node.diagnosis(log=ERROR_3).of(Outcome.WARNING) == ()
    node.edit(TOOLKIT_CONFIG, '"auto"', '"cdi"')
    assert broken(node.diagnosis(log=ERROR_3)) == ["cdi-present"]


@pytest.mark.parametrize("word", ["nvml", "cdi", "envvar,cdi"])
def test_error_4_is_seen_in_arguments_and_in_config(word: str) -> None:
    in_arguments = silent(plugin(settings={"device-list-strategy": word}))
    config = f'{{"version": "v1", "flags": {{"plugin": {{"deviceListStrategy": "{word}"}}}}}}'
    in_config = silent(plugin(configs={"default": config}, config_map="plugin-config"))

    for seen in (in_arguments, in_config):
        diagnosis = through_api(seen, ERROR_4.format(word))
        assert [found.check.id for found in diagnosis.causes] == ["plugin-list-strategy"]
        assert word.rpartition(",")[2] in diagnosis.causes[0].result.saw


def test_error_5_is_seen_in_the_configmap() -> None:
    seen = silent(plugin(configs={"config.yaml": PRINTED_CONFIG}, config_map="nvdp"))

    diagnosis = through_api(seen, ERROR_5)

    assert [found.check.id for found in diagnosis.causes] == ["plugin-config"]
    assert "no resources specified" in diagnosis.causes[0].result.saw
    assert "edit configmap nvdp" in diagnosis.causes[0].result.mend[0]


@pytest.mark.parametrize(
    ("mount", "path"),
    [
        ("/usr/lib/x86_64-linux-gnu", ""),
        ("/usr/lib", ""),
        ("/host-lib", "/host-lib:/usr/local/nvidia/lib64"),
        ("/host", "/host/usr/lib/x86_64-linux-gnu"),
    ],
)
def test_error_6_is_seen_in_mounts(mount: str, path: str) -> None:
    source = "/" if mount == "/host" else "/usr/lib/x86_64-linux-gnu"
    mounted = plugin(mounts=(Mount(host_path=source, path=mount),), library_path=path)

    diagnosis = through_api(silent(mounted), ERROR_6)

    assert [found.check.id for found in diagnosis.causes] == ["plugin-libraries"]


def test_the_hosts_root_at_driver_root_is_no_conflict() -> None:
    mounted = plugin(
        runtime_class="",
        is_privileged=True,
        version=(0, 18, 2),
        mounts=(Mount(host_path="/", path="/driver-root"),),
    )

    assert not through_api(cluster(mounted)).is_broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A cluster with one fault in it."""

    id: str
    seen: Cluster
    saw: str
    mend: str


@pytest.mark.parametrize(
    "case",
    [
        Deployed(
            id="plugin-affinity",
            seen=silent(
                plugin(mismatch=unlabelled(), desired=0, pod=None),
                labels={"nvidia.com/gpu.present": "true"},
            ),
            saw="feature.node.kubernetes.io/pci-10de.present=true or",
            mend="kubectl label node n1 nvidia.com/gpu.present=true",
        ),
        Deployed(
            id="plugin-taints",
            seen=silent(
                plugin(untolerated="gpu=yes:NoSchedule", pod=None),
                labels={"nvidia.com/gpu.present": "true"},
            ),
            saw="gpu=yes:NoSchedule",
            mend='"key":"gpu","operator":"Exists","effect":"NoSchedule"',
        ),
        Deployed(
            id="plugin-duplicate",
            seen=cluster(
                plugin(), plugin(name="gpu-operator/nvidia-device-plugin", is_of_operator=True)
            ),
            saw="both run on this node",
            mend="kubectl -n kube-system delete daemonset nvidia-device-plugin-daemonset",
        ),
        Deployed(
            id="plugin-discovery-strategy",
            seen=cluster(plugin(settings={"device-discovery-strategy": "cdi-cri"})),
            saw="cdi-cri",
            mend="DEVICE_DISCOVERY_STRATEGY=auto",
        ),
        Deployed(
            id="plugin-config-key",
            seen=cluster(
                plugin(configs={"default": "version: v1"}, config_map="nvdp"),
                labels={"nvidia.com/device-plugin.config": "slow"},
            ),
            saw="slow",
            mend="nvidia.com/device-plugin.config=default",
        ),
        Deployed(
            id="plugin-config-key",
            seen=cluster(plugin(config_map="nvdp", config_map_missing=True)),
            saw="does not exist",
            mend="create configmap nvdp",
        ),
        Deployed(
            id="plugin-pod",
            seen=cluster(plugin(pod=PluginPod(name="p-1", waiting="CrashLoopBackOff"))),
            saw="CrashLoopBackOff",
            mend="logs p-1 --previous",
        ),
        Deployed(
            id="runtimeclass-present",
            seen=cluster(plugin(), runtime_classes={}),
            saw='no RuntimeClass "nvidia"',
            mend="kubectl apply",
        ),
        Deployed(
            id="dra-conflict",
            seen=cluster(plugin(), extended_classes=("gpu.nvidia.com",), slices=1),
            saw="DeviceClass gpu.nvidia.com and the plugin",
            mend="delete daemonset",
        ),
        Deployed(
            id="node-ready",
            seen=cluster(
                plugin(),
                conditions=(NodeCondition(type="Ready", status="Unknown", message="lost"),),
            ),
            saw="lost",
            mend="describe node n1",
        ),
    ],
    ids=lambda case: f"{case.id}: {case.saw}",
)
def test_a_deployment_is_wrong(case: Deployed) -> None:
    diagnosis = through_api(case.seen)

    assert [found.check.id for found in diagnosis.causes] == [case.id]
    assert case.saw in diagnosis.causes[0].result.saw
    assert any(case.mend in command for command in diagnosis.causes[0].result.mend)
    assert_shell(diagnosis.causes[0].result.mend)


def test_a_stale_zero_is_told_with_the_patch_that_removes_it(tmp_path: Path) -> None:
    seen = cluster(capacity={"nvidia.com/gpu": "0"}, allocatable={"nvidia.com/gpu": "0"})

    diagnosis = kubeadm(tmp_path).diagnosis(cluster=seen)

    assert broken(diagnosis) == ["stale-zero", "gpu-advertised"]
    assert "OutOfnvidia.com/gpu" in diagnosis.causes[0].result.saw
    assert "kubectl patch node n1 --subresource=status" in diagnosis.causes[0].result.mend[1]


def test_a_zero_that_a_dead_plugin_leaves_follows_from_what_killed_it(tmp_path: Path) -> None:
    seen = cluster(
        plugin(runtime_class=""),
        capacity={"nvidia.com/gpu": "0"},
        allocatable={"nvidia.com/gpu": "0"},
    )

    diagnosis = k3s(tmp_path).diagnosis(cluster=seen, log=ERROR_1)

    assert [found.check.id for found in diagnosis.causes] == ["plugin-runtime-class"]
    assert "stale-zero" in broken(diagnosis)


def test_a_runtime_class_without_its_handler_follows_from_the_node(tmp_path: Path) -> None:
    node = kubeadm(tmp_path).remove("etc/containerd/conf.d/99-nvidia.toml")

    diagnosis = node.diagnosis(cluster=cluster(plugin()))

    assert broken(diagnosis) == ["nvidia-handler", "runtimeclass-handler"]
    assert diagnosis.consequences[0].because_of == ("nvidia-handler",)


@pytest.mark.parametrize("resource", ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"])
def test_a_zero_is_right_where_gpus_are_offered_in_parts(resource: str) -> None:
    offered = {"nvidia.com/gpu": "0", resource: "7"}

    assert not through_api(cluster(plugin(), capacity=offered, allocatable=offered)).is_broken


def test_gpus_that_a_plugin_gave_up_are_a_warning() -> None:
    diagnosis = through_api(cluster(plugin(), capacity={"nvidia.com/gpu": "8"}))

    assert not diagnosis.is_broken
    assert [found.check.id for found in diagnosis.of(Outcome.WARNING)] == ["gpus-unhealthy"]


@pytest.mark.parametrize("path", ["plugin", "annotation"])
def test_a_node_that_gpudetour_serves_needs_no_plugin_of_nvidias(path: str) -> None:
    annotations = {PATH: path, INVENTORY: "{}"}
    offered = {"nvidia.com/gpu": "1"} if path == "plugin" else {}
    seen = cluster(
        plugin(mismatch=unlabelled(), pod=None),
        annotations=annotations,
        capacity=offered,
        allocatable=offered,
    )

    assert not through_api(seen).is_broken
