"""File trees of nodes as distributions make them: healthy ones, for tests to break one thing in.

A device node is a file that holds its numbers, so that no test needs root.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from doctor.checks.catalogue import CHECKS
from doctor.diagnosis import Diagnosis, diagnose
from doctor.facts.cluster import Cluster
from doctor.facts.facts import Facts
from doctor.facts.host import Host, Nvml
from doctor.gather.host import read_host
from doctor.gather.tree import DeviceNumber, Tree

DRIVER = "580.95.05"
KERNEL = "6.8.0-88-generic"
BDF = "0000:01:00.0"
#: PCI device numbers: RTX 5060 Ti, RTX 4090, H100, GTX 1080.
BLACKWELL, ADA, HOPPER, PASCAL = 0x2D04, 0x2684, 0x2330, 0x1B80
BOOT = 1_760_000_000

K3S = "var/lib/rancher/k3s/agent/etc/containerd"
RKE2 = "var/lib/rancher/rke2/agent/etc/containerd"
MICROK8S = "var/snap/microk8s/current/args"
PLUGINS = "var/lib/kubelet/device-plugins"
TOOLKIT_CONFIG = "etc/nvidia-container-runtime/config.toml"
PCI = f"sys/bus/pci/devices/{BDF}"
LIBRARIES = "usr/lib/x86_64-linux-gnu"

CDI_SPEC = f"""\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
containerEdits:
  mounts:
  - hostPath: /{LIBRARIES}/libcuda.so.{DRIVER}
    containerPath: /{LIBRARIES}/libcuda.so.{DRIVER}
"""


def runtimes(version: int, *, binary: str = "/usr/bin/nvidia-container-runtime") -> str:
    """The two handlers of a node, in the section of that config version."""
    section = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}[version]
    head = f"[plugins.'{section}'.containerd.runtimes"
    return (
        f"{head}.runc]\nruntime_type = 'io.containerd.runc.v2'\n"
        f"{head}.runc.options]\nSystemdCgroup = true\n"
        f"{head}.nvidia]\nruntime_type = 'io.containerd.runc.v2'\n"
        f"{head}.nvidia.options]\nBinaryName = '{binary}'\nSystemdCgroup = true\n"
    )


class NodeTree:
    """A root directory of a node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nvml: Nvml | None = None

    def write(self, path: str, text: str = "") -> NodeTree:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return self

    def edit(self, path: str, old: str, new: str) -> NodeTree:
        text = (self.root / path).read_text()
        assert old in text, f"{path} holds no {old!r}"
        return self.write(path, text.replace(old, new))

    def program(self, path: str) -> NodeTree:
        self.write(path, "#!/bin/sh\n")
        (self.root / path).chmod(0o755)
        return self

    def link(self, path: str, target: str) -> NodeTree:
        self.remove(path)
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)
        return self

    def folder(self, path: str) -> NodeTree:
        (self.root / path).mkdir(parents=True, exist_ok=True)
        return self

    def remove(self, *paths: str) -> NodeTree:
        """Take files away; a pattern must match something unless it is the exact name."""
        for path in paths:
            for found in self.root.glob(path) if "*" in path else [self.root / path]:
                if found.is_symlink() or found.exists():
                    found.unlink()
        return self

    def answers(self, nvml: Nvml) -> NodeTree:
        """Let NVML answer so."""
        self.nvml = nvml
        return self

    def host(self) -> Host:
        """Everything that the doctor reads of it."""
        tree = Tree(self.root, devices=_written_number)
        return read_host(tree, probe=lambda _: self.nvml, run=None, step=lambda _: None)

    def diagnosis(self, *, cluster: Cluster | None = None, log: str | None = None) -> Diagnosis:
        facts = Facts(host=self.host(), cluster=cluster or Cluster(), plugin_log=log)
        return diagnose(facts, CHECKS)


def assert_shell(commands: tuple[str, ...]) -> None:
    """Every command that a person is told to run is valid shell."""
    script = "\n".join(commands)
    done = subprocess.run(["bash", "-n"], input=script.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), script


def _written_number(path: Path) -> DeviceNumber | None:
    match = re.match(r"c (\d{1,4}) (\d{1,4})", path.read_text(errors="replace"), re.ASCII)
    return DeviceNumber(major=int(match[1]), minor=int(match[2])) if match else None


def with_gpu(
    node: NodeTree, *, device: int = BLACKWELL, bdf: str = BDF, minor: int = 0
) -> NodeTree:
    """Add a card that the driver drives."""
    pci = f"sys/bus/pci/devices/{bdf}"
    node.write(f"{pci}/vendor", "0x10de\n").write(f"{pci}/class", "0x030000\n")
    node.write(f"{pci}/device", f"0x{device:04x}\n").write(f"{pci}/config", "\x1e\x10")
    node.folder("sys/bus/pci/drivers/nvidia").link(f"{pci}/driver", "../../drivers/nvidia")
    node.write(f"proc/driver/nvidia/gpus/{bdf}/information", f"Device Minor: \t {minor}\n")
    return node.write(f"dev/nvidia{minor}", f"c 195 {minor}")


def with_driver(node: NodeTree, *, folder: str = LIBRARIES, version: str = DRIVER) -> NodeTree:
    """Add the driver: open module, libraries, device nodes."""
    node.write("proc/sys/kernel/osrelease", f"{KERNEL}\n")
    node.write("proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvidia 2 1 nvidia_uvm, Live 0x0\n")
    node.write("proc/devices", "Character devices:\n195 nvidia\n510 nvidia-uvm\n\nBlock devices:\n")
    node.write(
        "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n",
    )
    node.write(f"lib/modules/{KERNEL}/updates/dkms/nvidia.ko.zst")
    for name in ("libnvidia-ml.so", "libcuda.so"):
        node.write(f"{folder}/{name}.{version}")
        node.link(f"{folder}/{name}.1", f"{name}.{version}")
    for name, numbers in (("nvidiactl", "c 195 255"), ("nvidia-uvm", "c 510 0")):
        node.write(f"dev/{name}", numbers)
    return node.write("var/log/kern.log", "kernel: Linux version 6.8.0\nkernel: nvidia: loaded\n")


def with_toolkit(node: NodeTree, *, folder: str = "usr/bin", version: str = "1.18.2-1") -> NodeTree:
    """Add the container toolkit as Debian's package of it."""
    for name in ("nvidia-container-runtime", "nvidia-ctk", "nvidia-cdi-hook"):
        node.program(f"{folder}/{name}")
    node.program("usr/bin/runc").program("sbin/ldconfig")
    node.write(
        TOOLKIT_CONFIG,
        'supported-driver-capabilities = "compute,utility"\n[nvidia-container-cli]\n'
        'ldconfig = "@/sbin/ldconfig"\n[nvidia-container-runtime]\nmode = "auto"\n'
        'runtimes = ["runc", "crun"]\n',
    )
    return node.write(
        "var/lib/dpkg/status",
        "Package: nvidia-container-toolkit\nStatus: install ok installed\n"
        f"Version: {version}\n\nPackage: other\nStatus: install ok installed\nVersion: 1\n",
    )


def with_kubelet(node: NodeTree, folder: str = PLUGINS) -> NodeTree:
    """Add kubelet's plugin folder with the plugin of one resource."""
    node.write(f"{folder}/kubelet.sock").write(f"{folder}/nvidia-gpu.sock")
    checkpoint = {"Data": {"RegisteredDevices": {"nvidia.com/gpu": ["GPU-1"]}}, "Checksum": 1}
    return node.write(f"{folder}/kubelet_internal_checkpoint", json.dumps(checkpoint))


def _common(root: Path) -> NodeTree:
    node = NodeTree(root)
    with_driver(node)
    with_gpu(node)
    node.nvml = Nvml(gpus=1)
    return node.write("etc/os-release", 'ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\n')


def k3s(root: Path) -> NodeTree:
    """An agent of K3s 1.34, whose containerd is 2.x and knows version 3."""
    node = with_kubelet(with_toolkit(_common(root)))
    node.write("etc/systemd/system/k3s-agent.service", "[Service]\n")
    node.write("run/k3s/containerd/containerd.sock")
    text = f"version = 3\nimports = ['/{K3S}/config-v3.toml.d/*.toml']\n{runtimes(3)}"
    return node.write(f"{K3S}/config.toml", text)


def rke2(root: Path) -> NodeTree:
    """A node of RKE2 with containerd 1.7, whose file is of version 2."""
    node = with_kubelet(with_toolkit(_common(root)))
    node.write("usr/local/lib/systemd/system/rke2-agent.service", "[Service]\n")
    node.write("run/k3s/containerd/containerd.sock")
    return node.write(f"{RKE2}/config.toml", f"version = 2\n{runtimes(2)}")


def kubeadm(root: Path) -> NodeTree:
    """A node of kubeadm: Ubuntu's containerd 1.7, and the drop-in that nvidia-ctk writes."""
    node = with_kubelet(with_toolkit(_common(root)))
    node.edit(
        "var/lib/dpkg/status",
        "Package: other\n",
        "Package: containerd\nStatus: install ok installed\nVersion: 1.7.28-0ubuntu1\n\n"
        "Package: other\n",
    )
    node.write("run/containerd/containerd.sock")
    node.write("proc/stat", f"cpu 1\nbtime {BOOT}\n")
    node.write("proc/812/comm", "containerd\n")
    fields = " ".join(["S", *["0"] * 18, "9999999999"])  # started long after the files
    node.write("proc/812/stat", f"812 (containerd) {fields}\n")
    node.write("proc/812/environ", "PATH=/usr/local/sbin:/usr/bin\0LANG=C\0")
    node.write("etc/cdi/nvidia.yaml", CDI_SPEC)
    node.write(
        "etc/containerd/config.toml",
        'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n'
        "[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = true\n",
    )
    return node.write("etc/containerd/conf.d/99-nvidia.toml", f"version = 2\n{runtimes(2)}")


def talos(root: Path) -> NodeTree:
    """A node of Talos with NVIDIA's two system extensions: no packages, libraries elsewhere."""
    node = NodeTree(root)
    with_driver(node, folder="usr/local/glibc/usr/lib")
    with_gpu(node, device=HOPPER)
    node.nvml = Nvml(gpus=1)
    for name in ("nvidia-container-runtime", "nvidia-ctk"):
        node.program(f"usr/local/bin/{name}")
    node.program("bin/runc").write("etc/os-release", 'ID=talos\nPRETTY_NAME="Talos (v1.11.5)"\n')
    node.write("run/containerd/containerd.sock")
    node.write("etc/cri/containerd.toml", 'version = 3\nimports = ["/etc/cri/conf.d/cri.toml"]\n')
    binary = "/usr/local/bin/nvidia-container-runtime"
    node.write("etc/cri/conf.d/cri.toml", f"version = 3\n{runtimes(3, binary=binary)}")
    return with_kubelet(node)


def microk8s(root: Path) -> NodeTree:
    """A node of MicroK8s with the operator's toolkit: everything below the snap's folders."""
    node = _common(root)
    folder = "usr/local/nvidia/toolkit"
    with_toolkit(node, folder=folder)
    node.remove(TOOLKIT_CONFIG).write(f"{folder}/.config/nvidia-container-runtime/config.toml")
    node.write("var/snap/microk8s/common/run/containerd.sock")
    node.write(f"{MICROK8S}/containerd-template.toml", "version = 2\n")
    binary = f"/{folder}/nvidia-container-runtime"
    node.write(f"{MICROK8S}/containerd.toml", f"version = 2\n{runtimes(2, binary=binary)}")
    return with_kubelet(node, "var/snap/microk8s/common/var/lib/kubelet/device-plugins")


def k0s(root: Path) -> NodeTree:
    """A worker of k0s, whose containerd imports the drop-ins of users."""
    node = with_toolkit(_common(root))
    node.write("etc/systemd/system/k0sworker.service", "[Service]\n").folder("var/lib/k0s/bin")
    node.write("run/k0s/containerd.sock")
    text = 'version = 2\nimports = ["/etc/k0s/containerd.d/*.toml"]\n'
    node.write("etc/k0s/containerd.toml", text)
    node.write("etc/k0s/containerd.d/nvidia.toml", f"version = 2\n{runtimes(2)}")
    # Kubelet's plugin folder does not follow its --root-dir.
    return with_kubelet(node.folder("var/lib/k0s/kubelet"))


def crio(root: Path) -> NodeTree:
    """A node of kubeadm with CRI-O, and the drop-in that nvidia-ctk writes."""
    node = with_kubelet(with_toolkit(_common(root)))
    node.write("run/crio/crio.sock")
    node.write("etc/crio/crio.conf", '[crio.runtime]\ndefault_runtime = "crun"\n')
    return node.write(
        "etc/crio/crio.conf.d/99-nvidia.conf",
        "[crio.runtime.runtimes.crun]\nruntime_path = '/usr/bin/crun'\n"
        "[crio.runtime.runtimes.nvidia]\nruntime_path = '/usr/bin/nvidia-container-runtime'\n",
    )


#: Healthy nodes by name.
HEALTHY: dict[str, Callable[[Path], NodeTree]] = {
    "k3s": k3s,
    "rke2": rke2,
    "kubeadm": kubeadm,
    "talos": talos,
    "microk8s": microk8s,
    "k0s": k0s,
    "cri-o": crio,
}
