"""What works and should be looked at all the same: told, with exit status 0."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from doctor.findings import Outcome
from doctor.report import verdict
from tests.doctor.nodes import (
    ADA,
    BOOT,
    HEALTHY,
    PLUGINS,
    TOOLKIT_CONFIG,
    NodeTree,
    assert_shell,
    with_gpu,
)

_STATUS = "var/lib/dpkg/status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A healthy node with something that should not stay so."""

    id: str
    change: Callable[[NodeTree], object]
    saw: str
    on: str = "kubeadm"


def set_version(version: str) -> Callable[[NodeTree], object]:
    return lambda node: node.edit(_STATUS, "1.18.2-1", version)


def in_config(text: str) -> Callable[[NodeTree], object]:
    return lambda node: node.edit(TOOLKIT_CONFIG, "supported", f"{text}\nsupported")


def hold_one_of_two(node: NodeTree) -> None:
    with_gpu(node, device=ADA, bdf="0000:02:00.0", minor=1).folder("sys/bus/pci/drivers/vfio-pci")
    node.link("sys/bus/pci/devices/0000:02:00.0/driver", "../../drivers/vfio-pci")


def change_after_start(node: NodeTree, path: str) -> None:
    """Let containerd have started 1,000 s after the boot, and one of its files be newer."""
    node.edit("proc/812/stat", "9999999999", "100000")
    for file in (node.root / "etc/containerd").rglob("*.toml"):
        os.utime(file, (BOOT, BOOT))
    os.utime(node.root / path, (BOOT + 5000, BOOT + 5000))


def lose_the_plugin(node: NodeTree) -> None:
    node.remove(f"{PLUGINS}/nvidia-gpu.sock")
    held = {"PodUID": "u", "ResourceName": "nvidia.com/gpu", "DeviceIDs": {"-1": ["GPU-1"]}}
    document = {"Data": {"PodDeviceEntries": [held], "RegisteredDevices": {}}}
    node.write(f"{PLUGINS}/kubelet_internal_checkpoint", json.dumps(document))


CASES = (
    Case(id="toolkit-version", change=set_version("1.17.7-1"), saw="CVE-2025-23266"),
    Case(id="toolkit-version", change=set_version("1.17.3-1"), saw="CVE-2025-23266"),
    Case(id="toolkit-version", change=set_version("1:1.9.0"), saw="fixed in 1.17.8"),
    Case(
        id="toolkit-swarm-resource",
        change=in_config('swarm-resource = "MY_GPUS"'),
        saw="is ignored before 1.19",
    ),
    Case(
        id="toolkit-features",
        change=lambda node: node.write(
            TOOLKIT_CONFIG, "[features]\nallow-ldconfig-from-container = true\n"
        ),
        saw="allow-ldconfig-from-container",
    ),
    Case(
        id="device-char-links",
        change=lambda node: node.edit(TOOLKIT_CONFIG, '"auto"', '"legacy"'),
        saw="daemon-reload",
    ),
    Case(
        id="handler-cgroup",
        change=lambda node: node.edit(
            "etc/containerd/conf.d/99-nvidia.toml",
            "container-runtime'\nSystemdCgroup = true",
            "container-runtime'",
        ),
        saw="lacks SystemdCgroup",
    ),
    Case(
        id="runtime-restarted",
        change=lambda node: change_after_start(node, "etc/containerd/config.toml"),
        saw="changed after containerd started",
    ),
    Case(id="orphaned-devices", change=lose_the_plugin, saw="1 GPUs given out by a plugin"),
    Case(id="gpu-vfio", change=hold_one_of_two, saw="0000:02:00.0 is held"),
    Case(
        id="gpu-xid",
        change=lambda node: node.write(
            "var/log/kern.log", "NVRM: Xid (PCI:0000:01:00): 63, pid='<unknown>', Row Remapper\n"
        ),
        saw="row remapped",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}: {case.saw}")
def test_a_warning_alone_is_no_fault(case: Case, tmp_path: Path) -> None:
    node = HEALTHY[case.on](tmp_path)
    case.change(node)

    diagnosis = node.diagnosis()

    (found,) = diagnosis.of(Outcome.WARNING)
    assert found.check.id == case.id
    assert case.saw in found.result.saw
    assert found.result.mend
    assert_shell(found.result.mend)
    assert not diagnosis.is_broken
    assert verdict(diagnosis).startswith("FINE: ")


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_errors_of_applications_are_no_fault_of_the_node(xid: int, tmp_path: Path) -> None:
    node = HEALTHY["k3s"](tmp_path)
    node.write("var/log/kern.log", f"NVRM: Xid (PCI:0000:01:00): {xid}, pid=1, name=python\n")

    assert node.diagnosis().of(Outcome.WARNING, Outcome.BROKEN) == ()


@pytest.mark.parametrize("version", ["1.17.8-1", "1.18.0-1", "1.20.1-1"])
def test_a_toolkit_with_its_fixes_is_fine(version: str, tmp_path: Path) -> None:
    node = HEALTHY["kubeadm"](tmp_path)
    set_version(version)(node)

    assert node.diagnosis().of(Outcome.WARNING, Outcome.BROKEN) == ()
