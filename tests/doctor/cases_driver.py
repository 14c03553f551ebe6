"""What can be broken in a node's hardware and in NVIDIA's driver."""

from __future__ import annotations

from doctor.facts.host import Nvml
from tests.doctor.cases import Case
from tests.doctor.nodes import (
    ADA,
    BDF,
    DRIVER,
    KERNEL,
    LIBRARIES,
    PASCAL,
    PCI,
    NodeTree,
    with_gpu,
)

_CLOSED = "NVIDIA UNIX x86_64 Kernel Module"
_OPEN = "NVIDIA UNIX Open Kernel Module for x86_64"
_VERSION = "proc/driver/nvidia/version"
_SWITCH = "sys/bus/pci/devices/0000:05:00.0"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def unload(node: NodeTree) -> NodeTree:
    """Take away what is there only while the module is loaded."""
    node.remove(_VERSION, f"proc/driver/nvidia/gpus/{BDF}/information", f"{PCI}/driver")
    node.remove("dev/nvidia*").write("proc/modules", "ext4 1 0 - Live 0x0\n")
    node.nvml = Nvml(code=9, text="nvmlInit: Driver Not Loaded")
    return node


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
        mend="(uname -r) nvidia-driver-580",
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
)
