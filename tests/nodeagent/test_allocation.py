"""What a container is given for the devices that kubelet chose."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpus.model import DeviceId
from nodeagent.deviceplugin.allocation import (
    Allocation,
    DeviceList,
    Handover,
    UnknownDevice,
    allocate,
)
from nodeagent.deviceplugin.runtime import containerd_configs, supports_cdi

A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
NAMES = {A: "gpudetour.io/gpu=GPU-a", B: "gpudetour.io/gpu=GPU-b"}


def test_cdi_names_where_the_runtime_reads_them() -> None:
    handover = Handover(device_list=DeviceList.CDI, cdi_names=NAMES)
    assert allocate([B, A], known=[A, B], handover=handover) == Allocation(
        cdi_devices=(NAMES[B], NAMES[A])
    )


def test_the_variable_elsewhere() -> None:
    handover = Handover(device_list=DeviceList.ENV, cdi_names=NAMES)
    assert allocate([A, B], known=[A, B], handover=handover) == Allocation(
        envs={"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    )


def test_the_variable_when_the_spec_does_not_describe_every_device() -> None:
    handover = Handover(device_list=DeviceList.CDI, cdi_names={A: NAMES[A]})
    assert allocate([A, B], known=[A, B], handover=handover) == Allocation(
        envs={"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    )


def test_a_device_named_twice_is_given_once() -> None:
    handover = Handover(device_list=DeviceList.ENV)
    assert allocate([A, A], known=[A], handover=handover).envs == {"NVIDIA_VISIBLE_DEVICES": A}


def test_unknown_devices_are_refused_by_name() -> None:
    handover = Handover(device_list=DeviceList.ENV)
    with pytest.raises(UnknownDevice, match="GPU-x, GPU-y"):
        allocate([A, "GPU-x", "GPU-y"], known=[A], handover=handover)


_ENABLED = '[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = true\n'


@pytest.mark.parametrize(
    ("runtime", "config", "cdi"),
    [
        ("containerd://2.1.5", "", True),
        ("containerd://2.0.0-k3s1", "", True),
        ("containerd://1.7.27", "", False),
        ("containerd://1.7.27-k3s1", _ENABLED, True),
        ("containerd://1.7.27", _ENABLED.replace("true", "false"), False),
        ("containerd://1.7.27", _ENABLED.replace("true", '"true"'), False),
        ("containerd://1.7.27", "plugins = 3", False),
        ("containerd://1.7.27", "not toml", False),
        ("containerd://1.6.30", _ENABLED, False),
        ("cri-o://1.34.1", "", True),
        ("cri-o://1.22.0", "", False),
        ("docker://28.0.1", _ENABLED, False),
        ("simulated://0", "", False),
        ("", "", False),
    ],
)
def test_whether_the_runtime_reads_cdi_names(runtime: str, config: str, cdi: bool) -> None:
    assert supports_cdi(runtime, containerd_configs=[config]) is cdi


def test_the_configuration_of_k3s_is_found(tmp_path: Path) -> None:
    config = tmp_path / "var/lib/rancher/k3s/agent/etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(_ENABLED)
    assert supports_cdi("containerd://1.7.1", containerd_configs=containerd_configs(tmp_path))
    assert not supports_cdi("containerd://1.7.1", containerd_configs=containerd_configs(config))
