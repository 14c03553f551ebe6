"""One thing is broken in a healthy node's files: the doctor names it first, and nothing else but
what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from doctor.facts.host import Nvml
from doctor.findings import Outcome
from tests.doctor.nodes import (
    ADA,
    BDF,
    DRIVER,
    HEALTHY,
    K3S,
    KERNEL,
    LIBRARIES,
    PASCAL,
    PCI,
    PLUGINS,
    RKE2,
    TOOLKIT_CONFIG,
    NodeTree,
    assert_shell,
    runtimes,
    with_gpu,
)

_CLOSED = "NVIDIA UNIX x86_64 Kernel Module"
_OPEN = "NVIDIA UNIX Open Kernel Module for x86_64"
_VERSION = "proc/driver/nvidia/version"
_CONTAINERD = "etc/containerd/config.toml"
_DROP_IN = "etc/containerd/conf.d/99-nvidia.toml"
_SWITCH = "sys/bus/pci/devices/0000:05:00.0"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is done to a healthy node, what must be told first, and all that may follow from it.

    `saw` and `mend` are words that must be in what is told.
    """

    name: str
    on: str
    break_it: Callable[[NodeTree], object]
    first: str
    then: frozenset[str] = frozenset()
    saw: str
    mend: str


def unload(node: NodeTree) -> NodeTree:
    """Take away what is there only while the module is loaded."""
    node.remove(_VERSION, f"proc/driver/nvidia/gpus/{BDF}/information", f"{PCI}/driver")
    node.remove("dev/nvidia*").write("proc/modules", "ext4 1 0 - Live 0x0\n")
    node.nvml = Nvml(code=9, text="nvmlInit: Driver Not Loaded")
    return node


def no_toolkit(node: NodeTree) -> NodeTree:
    return node.remove("usr/bin/nvidia-*")


def bind(node: NodeTree, driver: str) -> NodeTree:
    unload(node).folder(f"sys/bus/pci/drivers/{driver}")
    return node.link(f"{PCI}/driver", f"../../drivers/{driver}")


#: What follows where the module is not loaded; a spec on disk names device nodes that are gone.
_UNLOADED = frozenset({"driver-loaded", "nvml"})
_WITH_SPEC = _UNLOADED | {"cdi-stale"}

CASES = (
    Case(
        name="the card fell off the bus",
        on="kubeadm",
        break_it=lambda n: (n.root / PCI / "config").write_bytes(b"\xff" * 64),
        first="gpu-on-bus",
        saw=BDF,
        mend="sudo reboot",
    ),
    Case(
        name="the card is gone from the bus",
        on="kubeadm",
        break_it=lambda n: n.write(f"{PCI}/vendor", "0x8086\n"),
        first="gpu-present",
        saw="yet the driver is loaded",
        mend="lspci",
    ),
    Case(
        name="nouveau holds the card",
        on="k3s",
        break_it=lambda n: bind(n, "nouveau"),
        first="gpu-nouveau",
        then=_UNLOADED,
        saw="bound to nouveau",
        mend="blacklist nouveau",
    ),
    Case(
        name="the card is held for virtual machines",
        on="kubeadm",
        break_it=lambda n: bind(n, "vfio-pci"),
        first="gpu-vfio",
        then=_WITH_SPEC,
        saw="vfio-pci",
        mend="/etc/modprobe.d",
    ),
    Case(
        name="no driver at all",
        on="rke2",
        break_it=lambda n: unload(n).remove(
            f"lib/modules/{KERNEL}/updates/dkms/nvidia.ko.zst", f"{LIBRARIES}/lib*"
        ),
        first="driver-installed",
        then=frozenset({"driver-loaded"}),
        saw="neither a kernel module nor libnvidia-ml.so.1",
        mend="nvidia-driver-580-open",
    ),
    Case(
        name="the kernel was updated without its module",
        on="kubeadm",
        break_it=lambda n: unload(n).write("proc/sys/kernel/osrelease", "6.14.0-36-generic\n"),
        first="driver-kernel",
        then=_WITH_SPEC,
        saw="6.14.0-36-generic",
        mend="dkms autoinstall",
    ),
    Case(
        name="Secure Boot refuses the module",
        on="kubeadm",
        break_it=lambda n: unload(n).write(_SECURE_BOOT, "\x06\x00\x00\x00\x01"),
        first="driver-secure-boot",
        then=_WITH_SPEC,
        saw="Secure Boot is on",
        mend="mokutil",
    ),
    Case(
        name="the module is just not loaded",
        on="k3s",
        break_it=unload,
        first="driver-loaded",
        then=frozenset({"nvml"}),
        saw="not loaded",
        mend="sudo modprobe nvidia",
    ),
    Case(
        name="Blackwell with the closed module",
        on="k3s",
        break_it=lambda n: (
            n.edit(_VERSION, _OPEN, _CLOSED).write(
                "var/log/kern.log", "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:744)"
            ),
            n.answers(Nvml(gpus=0)),
        ),
        first="driver-open-module",
        then=frozenset({"gpu-initialised", "nvml"}),
        saw="works with the open one only",
        mend="nvidia-driver-580-open",
    ),
    Case(
        name="Pascal with the open module",
        on="k3s",
        break_it=lambda n: with_gpu(n, device=PASCAL),
        first="driver-open-module",
        saw="older than Turing",
        mend="nvidia-driver-580 ",
    ),
    Case(
        name="Pascal with a driver that forgot it",
        on="kubeadm",
        break_it=lambda n: (
            with_gpu(n, device=PASCAL)
            .edit(_VERSION, _OPEN, _CLOSED)
            .edit(_VERSION, DRIVER, "590.44.01"),
            n.remove(f"{LIBRARIES}/libnvidia-ml.so.*", "etc/cdi/nvidia.yaml")
            .write(f"{LIBRARIES}/libnvidia-ml.so.590.44.01")
            .link(f"{LIBRARIES}/libnvidia-ml.so.1", "libnvidia-ml.so.590.44.01"),
        ),
        first="driver-branch",
        saw="branch 580 is the last one",
        mend="nvidia-driver-580",
    ),
    Case(
        name="one of two cards was refused by the module",
        on="kubeadm",
        break_it=lambda n: (
            with_gpu(n, device=ADA, bdf="0000:02:00.0", minor=1),
            n.remove("sys/bus/pci/devices/0000:02:00.0/driver"),
        ),
        first="gpu-bound",
        saw="0000:02:00.0 has no driver",
        mend="dmesg",
    ),
    Case(
        name="a deadly Xid since the boot",
        on="kubeadm",
        break_it=lambda n: n.write(
            "var/log/kern.log",
            "NVRM: Xid (PCI:0000:09:00): 79, before the boot\nkernel: Linux version 6.8.0\n"
            "kernel: NVRM: Xid (PCI:0000:01:00): 119, pid=1, Timeout waiting for RPC from GSP0!\n",
        ),
        first="gpu-xid",
        saw="Xid 119 of 0000:01:00",
        mend="--gpu-reset",
    ),
    Case(
        name="the driver was updated without a reboot",
        on="kubeadm",
        break_it=lambda n: (
            n.remove(f"{LIBRARIES}/libnvidia-ml.so.*")
            .write(f"{LIBRARIES}/libnvidia-ml.so.580.105.08")
            .link(f"{LIBRARIES}/libnvidia-ml.so.1", "libnvidia-ml.so.580.105.08"),
            n.answers(Nvml(code=18, text="Driver/library version mismatch")),
        ),
        first="driver-library-version",
        then=frozenset({"nvml"}),
        saw=f"module {DRIVER} is loaded, and the library is 580.105.08",
        mend="sudo reboot",
    ),
    Case(
        name="the libraries are missing",
        on="kubeadm",
        break_it=lambda n: n.remove(f"{LIBRARIES}/libnvidia-ml*"),
        first="driver-library",
        saw="libnvidia-ml.so.1 is nowhere",
        mend="libnvidia-compute-580",
    ),
    Case(
        name="a device node is missing",
        on="k3s",
        break_it=lambda n: n.remove("dev/nvidia0"),
        first="device-nodes",
        saw="/dev/nvidia0 is missing",
        mend="nvidia-modprobe",
    ),
    Case(
        name="something made a file of a device node",
        on="rke2",
        break_it=lambda n: n.write("dev/nvidia0", "oops"),
        first="device-nodes",
        saw="no character device",
        mend="sudo rm /dev/nvidia0",
    ),
    Case(
        name="CUDA's device node is missing",
        on="k3s",
        break_it=lambda n: n.remove("dev/nvidia-uvm"),
        first="device-uvm",
        saw="/dev/nvidia-uvm is missing",
        mend="nvidia-modprobe -u -c0",
    ),
    Case(
        name="the number of a device node is stale",
        on="k3s",
        break_it=lambda n: n.write("dev/nvidia-uvm", "c 507 0"),
        first="device-numbers",
        saw="507, and the kernel's is 510",
        mend="sudo rm /dev/nvidia-uvm",
    ),
    Case(
        name="NVSwitches without their manager",
        on="kubeadm",
        break_it=lambda n: n.write(f"{_SWITCH}/vendor", "0x10de\n").write(
            f"{_SWITCH}/class", "0x068000\n"
        ),
        first="fabric-manager",
        saw="nv-fabricmanager does not run",
        mend="nvidia-fabricmanager-580",
    ),
    Case(
        name="a GPU hangs",
        on="kubeadm",
        break_it=lambda n: n.answers(Nvml(code=15, text="GPU is lost")),
        first="nvml",
        saw="GPU is lost",
        mend="Xid",
    ),
    Case(
        name="the toolkit is not installed",
        on="rke2",
        break_it=lambda n: no_toolkit(n).write(f"{RKE2}/config.toml", "version = 2\n"),
        first="toolkit-installed",
        then=frozenset({"nvidia-handler"}),
        saw="nowhere on this node",
        mend="apt-get install -y nvidia-container-toolkit",
    ),
    Case(
        name="the toolkit was removed, its handler was not",
        on="kubeadm",
        break_it=no_toolkit,
        first="toolkit-installed",
        then=frozenset({"handler-binary"}),
        saw="nowhere on this node",
        mend="nvidia-container-toolkit",
    ),
    Case(
        name="the handler names a program that is elsewhere",
        on="kubeadm",
        break_it=lambda n: n.edit(_DROP_IN, "/usr/bin/nvidia-container-runtime", "/opt/nvidia-cr"),
        first="handler-binary",
        saw="/opt/nvidia-cr",
        mend="nvidia-ctk runtime configure",
    ),
    Case(
        name="the toolkit's configuration is no TOML",
        on="k3s",
        break_it=lambda n: n.write(TOOLKIT_CONFIG, "[[["),
        first="toolkit-config",
        saw=TOOLKIT_CONFIG,
        mend="nvidia-ctk config",
    ),
    Case(
        name="seed error 2: K3s without a runc of the system",
        on="k3s",
        break_it=lambda n: n.remove("usr/bin/runc"),
        first="toolkit-runc",
        saw="no runtime binary found from candidate list: [runc crun]",
        mend="/var/lib/rancher/k3s/data/current/bin/runc",
    ),
    Case(
        name="the toolkit looks for a driver container that is gone",
        on="kubeadm",
        break_it=lambda n: n.edit(
            TOOLKIT_CONFIG, "[nvidia-container-cli]", '[nvidia-container-cli]\nroot = "/run/x"'
        ),
        first="toolkit-root",
        saw="/run/x",
        mend="nvidia-container-cli.root=/",
    ),
    Case(
        name="the toolkit's ldconfig is another distribution's",
        on="kubeadm",
        break_it=lambda n: n.edit(TOOLKIT_CONFIG, 'ldconfig"', 'ldconfig.real"'),
        first="toolkit-ldconfig",
        saw="@/sbin/ldconfig.real",
        mend="ldconfig=@/sbin/ldconfig",
    ),
    Case(
        name="the toolkit's mode is misspelt",
        on="kubeadm",
        break_it=lambda n: n.edit(TOOLKIT_CONFIG, '"auto"', '"cdi-cri"'),
        first="toolkit-mode",
        saw="cdi-cri",
        mend="mode=auto",
    ),
    Case(
        name="seed error 3: mode cdi without a spec",
        on="k3s",
        break_it=lambda n: n.edit(TOOLKIT_CONFIG, '"auto"', '"cdi"'),
        first="cdi-present",
        saw="Found 0 CDI devices",
        mend="nvidia-cdi-refresh",
    ),
    Case(
        name="containerd's configuration is no TOML",
        on="kubeadm",
        break_it=lambda n: n.write(_CONTAINERD, "version = 2\n[plugins\n"),
        first="containerd-config",
        saw=_CONTAINERD,
        mend="containerd --config",
    ),
    Case(
        name="Docker's package switched CRI off",
        on="kubeadm",
        break_it=lambda n: n.edit(
            _CONTAINERD,
            "version = 2",
            'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]',
        ),
        first="containerd-cri",
        saw="disabled_plugins",
        mend="disabled_plugins = []",
    ),
    Case(
        name="a drop-in that nothing imports",
        on="kubeadm",
        break_it=lambda n: (
            n.write(_CONTAINERD, "version = 2\n")
            .write("etc/containerd/config.d/99-nvidia.toml", runtimes(2))
            .remove(_DROP_IN)
        ),
        first="containerd-imports",
        then=frozenset({"nvidia-handler"}),
        saw="/etc/containerd/config.d/99-nvidia.toml is not imported",
        mend="imports =",
    ),
    Case(
        name="K3s: the drop-in lies in the folder of the other template version",
        on="k3s",
        break_it=lambda n: n.write(
            f"{K3S}/config.toml", f"version = 3\nimports = ['/{K3S}/config-v3.toml.d/*.toml']\n"
        ).write(f"{K3S}/config.toml.d/nvidia.toml", runtimes(2)),
        first="containerd-imports",
        then=frozenset({"nvidia-handler", "k3s-restart"}),
        saw="drop-ins are in config-v3.toml.d",
        mend="config-v3.toml.d",
    ),
    Case(
        name="sections of version 2 in a file of version 3",
        on="k3s",
        break_it=lambda n: n.write(f"{K3S}/config.toml", f"version = 3\n{runtimes(2)}"),
        first="containerd-sections",
        then=frozenset({"nvidia-handler", "k3s-restart"}),
        saw="is of version 2, and the file is of version 3",
        mend="io.containerd.cri.v1.runtime/",
    ),
    Case(
        name="no version in the file, so its sections are ignored",
        on="kubeadm",
        break_it=lambda n: n.write(_CONTAINERD, runtimes(2)).remove(_DROP_IN),
        first="containerd-sections",
        then=frozenset({"nvidia-handler"}),
        saw="the file names no version",
        mend="1i version = 2",
    ),
    Case(
        name="a template of its own keeps NVIDIA's runtime out",
        on="k3s",
        break_it=lambda n: n.write(f"{K3S}/config.toml", "version = 2\n").write(
            f"{K3S}/config.toml.tmpl", "version = 2\n"
        ),
        first="k3s-template",
        then=frozenset({"nvidia-handler"}),
        saw="config.toml.tmpl",
        mend='{{ template "base" . }}',
    ),
    Case(
        name="K3s was started before the toolkit was installed",
        on="k3s",
        break_it=lambda n: n.write(f"{K3S}/config.toml", "version = 3\n"),
        first="k3s-restart",
        then=frozenset({"nvidia-handler"}),
        saw="only when it starts",
        mend="sudo systemctl restart k3s-agent",
    ),
    Case(
        name="nobody configured the handler",
        on="kubeadm",
        break_it=lambda n: n.remove(_DROP_IN),
        first="nvidia-handler",
        saw='no runtime named "nvidia"',
        mend="nvidia-ctk runtime configure --runtime=containerd",
    ),
    Case(
        name="the default runtime does not exist",
        on="kubeadm",
        break_it=lambda n: n.edit(
            _CONTAINERD,
            "enable_cdi = true",
            "enable_cdi = true\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\n"
            'default_runtime_name = "nvidia-legacy"\n',
        ),
        first="default-runtime",
        saw="nvidia-legacy",
        mend="restart containerd",
    ),
    Case(
        name="containerd was not restarted",
        on="kubeadm",
        break_it=lambda n: n.edit("proc/812/stat", "9999999999", "100"),
        first="runtime-restarted",
        saw="changed after containerd started",
        mend="sudo systemctl restart containerd",
    ),
    Case(
        name="gpudetour's CDI on a containerd 1.7 without CDI",
        on="kubeadm",
        break_it=lambda n: n.edit(_CONTAINERD, "enable_cdi = true", "enable_cdi = false").write(
            "var/run/cdi/gpudetour.io-gpu.json",
            '{"cdiVersion": "0.5.0", "kind": "gpudetour.io/gpu"}',
        ),
        first="cdi-enabled",
        saw="CDI is off in containerd 1.7.28",
        mend="enable_cdi = true",
    ),
    Case(
        name="a CDI spec that is no YAML",
        on="kubeadm",
        break_it=lambda n: n.write("etc/cdi/nvidia.yaml", "cdiVersion: [\n"),
        first="cdi-readable",
        saw="/etc/cdi/nvidia.yaml",
        mend="sudo rm /etc/cdi/nvidia.yaml",
    ),
    Case(
        name="a CDI spec of the driver before",
        on="kubeadm",
        break_it=lambda n: n.edit("etc/cdi/nvidia.yaml", DRIVER, "570.86.10"),
        first="cdi-stale",
        saw=f"written for driver 570.86.10, and {DRIVER} is loaded",
        mend="nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    Case(
        name="a CDI spec names a device that is not there",
        on="kubeadm",
        break_it=lambda n: n.edit("etc/cdi/nvidia.yaml", "/dev/nvidia0", "/dev/nvidia7"),
        first="cdi-stale",
        saw="/dev/nvidia7, which does not exist",
        mend="nvidia-ctk cdi generate",
    ),
    Case(
        name="a CDI spec that is too new for containerd",
        on="kubeadm",
        break_it=lambda n: n.edit("etc/cdi/nvidia.yaml", "0.5.0", "0.7.0").edit(
            "var/lib/dpkg/status", "1.7.28", "1.7.12"
        ),
        first="cdi-version",
        saw="CDI version 0.7.0, and containerd 1.7.12 reads up to 0.6",
        mend="1.18",
    ),
    Case(
        name="a CDI device is described twice",
        on="kubeadm",
        break_it=lambda n: n.write(
            "etc/cdi/nvidia-2.yaml", (n.root / "etc/cdi/nvidia.yaml").read_text()
        ),
        first="cdi-conflict",
        saw="nvidia.com/gpu=0",
        mend="sudo rm /etc/cdi/nvidia-2.yaml",
    ),
    Case(
        name="kubelet's socket is gone",
        on="kubeadm",
        break_it=lambda n: n.remove(f"{PLUGINS}/kubelet.sock"),
        first="kubelet-socket",
        saw="kubelet.sock does not exist",
        mend="systemctl status kubelet",
    ),
    Case(
        name="kubelet's checkpoint is broken",
        on="k3s",
        break_it=lambda n: n.write(f"{PLUGINS}/kubelet_internal_checkpoint", '{"Data": 7'),
        first="kubelet-checkpoint",
        saw="kubelet_internal_checkpoint",
        mend="systemctl stop kubelet",
    ),
    Case(
        name="two plugins serve GPUs",
        on="kubeadm",
        break_it=lambda n: n.write(f"{PLUGINS}/hami-vgpu.sock"),
        first="two-plugins",
        saw="hami-vgpu.sock and nvidia-gpu.sock",
        mend="kubectl get daemonsets",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cause_is_told_first_and_nothing_else_is_blamed(case: Case, tmp_path: Path) -> None:
    node = HEALTHY[case.on](tmp_path)
    case.break_it(node)

    diagnosis = node.diagnosis()

    first, *others = diagnosis.of(Outcome.BROKEN)
    assert first.check.id == case.first
    assert {found.check.id for found in others} == case.then
    assert all(found.because_of == (case.first,) for found in others)
    assert diagnosis.of(Outcome.WARNING) == ()
    assert case.saw in first.result.saw
    assert any(case.mend in command for command in first.result.mend), first.result.mend
    assert_shell(first.result.mend)
