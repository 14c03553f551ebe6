"""The commands are those of the node's own distribution and package manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis import Diagnosis
from doctor.findings import Finding
from tests.doctor.nodes import (
    HEALTHY,
    K3S,
    MICROK8S,
    PASCAL,
    RKE2,
    NodeTree,
    assert_shell,
    with_gpu,
)

_CONFIGS = {
    "k3s": f"{K3S}/config.toml",
    "rke2": f"{RKE2}/config.toml",
    "kubeadm": "etc/containerd/conf.d/99-nvidia.toml",
    "talos": "etc/cri/conf.d/cri.toml",
    "microk8s": f"{MICROK8S}/containerd.toml",
    "k0s": "etc/k0s/containerd.d/nvidia.toml",
    "cri-o": "etc/crio/crio.conf.d/99-nvidia.conf",
}


def first(diagnosis: Diagnosis) -> Finding:
    return diagnosis.causes[0]


def without_handler(name: str, root: Path) -> NodeTree:
    """A node whose runtime does not know NVIDIA's."""
    node = HEALTHY[name](root)
    text = (root / _CONFIGS[name]).read_text()
    return node.write(_CONFIGS[name], text.replace("nvidia", "other"))


@pytest.mark.parametrize(
    ("name", "check", "command"),
    [
        ("k3s", "k3s-restart", "sudo systemctl restart k3s-agent"),
        ("rke2", "k3s-restart", "sudo systemctl restart rke2-agent"),
        (
            "kubeadm",
            "nvidia-handler",
            "sudo nvidia-ctk runtime configure --runtime=containerd",
        ),
        ("talos", "nvidia-handler", "siderolabs/nvidia-container-toolkit-lts"),
        ("microk8s", "nvidia-handler", "sudo microk8s enable nvidia"),
        (
            "k0s",
            "nvidia-handler",
            "--config=/etc/k0s/containerd.d/nvidia.toml",
        ),
        ("cri-o", "nvidia-handler", "sudo nvidia-ctk runtime configure --runtime=crio"),
    ],
)
def test_the_handler_comes_back_in_the_way_of_the_distribution(
    name: str, check: str, command: str, tmp_path: Path
) -> None:
    found = first(without_handler(name, tmp_path).diagnosis())

    assert found.check.id == check
    assert any(command in line for line in found.result.mend), found.result.mend
    assert_shell(found.result.mend)


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("ID=debian\n", "sudo apt-get install -y linux-headers-$(uname -r) nvidia-open-580"),
        ("ID=ubuntu\nID_LIKE=debian\n", "linux-headers-$(uname -r) nvidia-driver-580-open"),
        ('ID=rocky\nID_LIKE="rhel centos fedora"\n', "dnf module install"),
        ('ID=opensuse-leap\nID_LIKE="suse opensuse"\n', "zypper install"),
        ("ID=nixos\n", "# install NVIDIA's driver"),
        ("", "# install NVIDIA's driver"),
    ],
)
def test_the_driver_is_installed_with_the_systems_own_tool(
    system: str, command: str, tmp_path: Path
) -> None:
    node = NodeTree(tmp_path).write("etc/os-release", system)
    node.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    node.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")

    found = first(node.diagnosis())

    assert found.check.id == "driver-installed"
    assert any(command in line for line in found.result.mend), found.result.mend
    assert_shell(found.result.mend)


def test_cards_before_turing_get_the_closed_module(tmp_path: Path) -> None:
    node = with_gpu(HEALTHY["kubeadm"](tmp_path), device=PASCAL)

    command = first(node.diagnosis()).result.mend[0]

    assert command.endswith(" nvidia-driver-580")
