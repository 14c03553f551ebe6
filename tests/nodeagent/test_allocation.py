"""What a container is given for the devices that kubelet chose."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpus.model import GPU_RESOURCE, DeviceId, Gpu, NodeInventory, Source
from nodeagent.deviceplugin.allocation import Allocation, DeviceList, Handover, Refused, allocate
from nodeagent.deviceplugin.devices import Offer, Offering, Slicing, offers
from nodeagent.deviceplugin.driver_files import HostFile
from nodeagent.deviceplugin.runtime import (
    Runtime,
    containerd_configs,
    obstacle_to_cdi,
    reads_variable,
)

A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
NAMES = {A: "gpudetour.io/gpu=GPU-a", B: "gpudetour.io/gpu=GPU-b"}


INVENTORY = NodeInventory(source=Source.NVML, gpus=(Gpu(uuid=A, index=0), Gpu(uuid=B, index=1)))


def _offer(slicing: Slicing | None = None) -> Offer:
    sliced = {GPU_RESOURCE: slicing} if slicing is not None else {}
    return offers(INVENTORY, Offering(slicing=sliced))[GPU_RESOURCE]


def test_cdi_names_where_the_runtime_reads_them() -> None:
    handover = Handover(device_list=DeviceList.CDI, cdi_names=NAMES)
    assert allocate([B, A], offer=_offer(), handover=handover) == Allocation(
        cdi_devices=(NAMES[B], NAMES[A])
    )


def test_the_variable_elsewhere() -> None:
    handover = Handover(device_list=DeviceList.ENV, cdi_names=NAMES)
    assert allocate([A, B], offer=_offer(), handover=handover) == Allocation(
        envs={"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    )


def test_the_variable_when_the_spec_does_not_describe_every_device() -> None:
    handover = Handover(device_list=DeviceList.CDI, cdi_names={A: NAMES[A]})
    assert allocate([A, B], offer=_offer(), handover=handover) == Allocation(
        envs={"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    )


def test_a_device_named_twice_is_given_once() -> None:
    handover = Handover(device_list=DeviceList.ENV)
    answer = allocate([A, A], offer=_offer(), handover=handover)
    assert answer.envs == {"NVIDIA_VISIBLE_DEVICES": A}


def test_replicas_of_one_gpu_are_that_gpu_once() -> None:
    offer = _offer(Slicing(replicas=3, shown_as=GPU_RESOURCE))
    cdi = Handover(device_list=DeviceList.CDI, cdi_names=NAMES)
    answer = allocate(["GPU-a::2", "GPU-b::0", "GPU-a::0"], offer=offer, handover=cdi)
    assert answer == Allocation(cdi_devices=(NAMES[A], NAMES[B]))
    with pytest.raises(Refused, match="GPU-a::3"):
        allocate(["GPU-a::3"], offer=offer, handover=cdi)


def test_more_than_one_replica_is_refused_where_that_was_asked_for() -> None:
    offer = _offer(Slicing(replicas=3, shown_as=GPU_RESOURCE, one_at_a_time=True))
    handover = Handover(device_list=DeviceList.ENV)
    assert allocate(["GPU-a::2"], offer=offer, handover=handover).envs
    with pytest.raises(Refused, match="2 asked for"):
        allocate(["GPU-a::2", "GPU-b::0"], offer=offer, handover=handover)


def test_device_nodes_go_with_the_variable_once_each() -> None:
    control, own = (HostFile(container_path=f"/dev/{n}", host_path=f"/dev/{n}") for n in "ca")
    handover = Handover(device_list=DeviceList.ENV, nodes={A: (control, own), B: (control,)})
    answer = allocate([A, B], offer=_offer(), handover=handover)
    assert answer.device_nodes == (control, own)


def test_nothing_is_given_out_by_a_way_that_leads_nowhere() -> None:
    broken = Handover(device_list=DeviceList.CDI, cdi_names=NAMES, broken="the disk is full")
    with pytest.raises(Refused, match="the disk is full"):
        allocate([A], offer=_offer(), handover=broken)
    unread = Handover(device_list=DeviceList.CDI, cdi_names={A: NAMES[A]}, variable=False)
    assert allocate([A], offer=_offer(), handover=unread).cdi_devices
    with pytest.raises(Refused, match="does not describe GPU-b"):
        allocate([A, B], offer=_offer(), handover=unread)


def test_unknown_devices_are_refused_by_name() -> None:
    handover = Handover(device_list=DeviceList.ENV)
    with pytest.raises(Refused, match="GPU-x, GPU-y"):
        allocate([A, "GPU-x", "GPU-y"], offer=_offer(), handover=handover)


_ENABLED = '[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = true\n'
_V3 = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n"


@pytest.mark.parametrize(
    ("runtime", "config", "obstacle"),
    [
        ("containerd://2.1.5", "", None),
        ("containerd://2.0.0-k3s1", "", None),
        ("containerd://2.1.5", _V3 + "enable_cdi = false", "enable_cdi"),
        ("containerd://2.1.5", _V3 + "cdi_spec_dirs = ['/etc/cdi']", "in /etc/cdi, not in"),
        ("containerd://2.1.5", _V3 + "cdi_spec_dirs = ['/etc/cdi', '/run/cdi/']", None),
        ("containerd://2.1.5", _V3 + "cdi_spec_dirs = 7", None),
        ("containerd://1.7.27", "", "enable_cdi"),
        ("containerd://1.7.27-k3s1", _ENABLED, None),
        ("containerd://1.7.27", _ENABLED.replace("true", "false"), "enable_cdi"),
        ("containerd://1.7.27", _ENABLED.replace("true", '"true"'), "enable_cdi"),
        ("containerd://1.7.27", "plugins = 3", "enable_cdi"),
        ("containerd://1.7.27", "not toml", "enable_cdi"),
        ("containerd://1.6.30", _ENABLED, "does not read"),
        ("cri-o://1.34.1", "", None),
        ("cri-o://1.22.0", "", "does not read"),
        ("docker://28.0.1", _ENABLED, "does not read"),
        ("simulated://0", "", "not known"),
        ("", "", "not known"),
    ],
)
def test_whether_the_runtime_reads_cdi_names(
    runtime: str, config: str, obstacle: str | None
) -> None:
    node = Runtime(runtime_version=runtime, kubelet_version="v1.34.2", containerd_configs=(config,))
    found = obstacle_to_cdi(node, cdi_folder="/var/run/cdi")
    assert (found is None) == (obstacle is None)
    assert (obstacle or "") in (found or "")


def test_a_kubelet_that_drops_cdi_names_is_an_obstacle() -> None:
    for version, reads in (("v1.28.9", False), ("v1.29.0+k3s1", True), ("", True), ("odd", True)):
        node = Runtime(runtime_version="containerd://2.1.5", kubelet_version=version)
        assert (obstacle_to_cdi(node, cdi_folder="/var/run/cdi") is None) == reads


def test_a_later_drop_in_has_the_last_word() -> None:
    node = Runtime(
        runtime_version="containerd://2.1.5",
        containerd_configs=(_V3 + "enable_cdi = false", _V3 + "enable_cdi = true"),
    )
    assert obstacle_to_cdi(node, cdi_folder="/var/run/cdi") is None


_RUNTIME = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{}.options]\nBinaryName={}"


@pytest.mark.parametrize(
    ("runtime", "configs", "reads"),
    [
        ("containerd://2.1.5", [_RUNTIME.format("nvidia", "'/usr/bin/x'")], True),
        ("containerd://2.1.5", ["", _RUNTIME.format("gpu", "'/x/nvidia-container-runtime'")], True),
        ("containerd://2.1.5", [_RUNTIME.format("runc", "'/usr/bin/runc'")], False),
        ("containerd://2.1.5", ["not toml"], None),
        ("containerd://2.1.5", [], None),
        ("docker://28.0.1", ['disabled_plugins = ["cri"]'], None),
    ],
)
def test_whether_nvidias_runtime_is_set_up(
    runtime: str, configs: list[str], reads: bool | None
) -> None:
    node = Runtime(runtime_version=runtime, containerd_configs=tuple(configs))
    assert reads_variable(node) is reads


def test_the_configuration_of_k3s_is_found(tmp_path: Path) -> None:
    config = tmp_path / "var/lib/rancher/k3s/agent/etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(_ENABLED)
    (tmp_path / "etc/containerd/conf.d").mkdir(parents=True)
    (tmp_path / "etc/containerd/conf.d/99-nvidia.toml").write_bytes(b"\xff")
    assert list(containerd_configs(tmp_path)) == [_ENABLED]
    assert list(containerd_configs(config)) == []
