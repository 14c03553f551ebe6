"""Commands that mend a node, in the words of its own distribution and package manager. Pure."""

from __future__ import annotations

from typing import assert_never

from doctor.facts.facts import Facts
from doctor.facts.host import Distribution, Host

#: The driver branch that everything since Turing runs on; the last one for older cards too.
BRANCH = "580"
_DOCS = (
    "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
)
_TALOS = "add the extensions {} to the Talos schematic, build the image anew and upgrade the node"


def restart_runtime(host: Host) -> str:
    """Restart what runs containers."""
    if host.distribution is Distribution.TALOS:
        return "talosctl -n NODE reboot"
    return f"sudo systemctl restart {host.service or 'containerd'}"


def install_driver(host: Host, branch: str = BRANCH, *, is_open: bool = True) -> tuple[str, ...]:
    """Install a branch of the driver, with open kernel modules or closed ones."""
    kind = "open" if is_open else "proprietary"
    if host.distribution is Distribution.TALOS:
        modules = "nvidia-open-gpu-kernel-modules" if is_open else "nonfree-kmod-nvidia"
        return ("# " + _TALOS.format(f"siderolabs/{modules}-lts"),)
    headers = "linux-headers-$(uname -r)"
    if _is(host, "ubuntu"):
        package = f"nvidia-driver-{branch}{'-open' if is_open else ''}"
        return (f"sudo apt-get install -y {headers} {package}", "sudo reboot")
    if _is(host, "debian"):
        package = "nvidia-open" if is_open else "cuda-drivers"
        return (
            f"sudo apt-get install -y {headers} {package}-{branch}"
            "  # from NVIDIA's CUDA repository",
            "sudo reboot",
        )
    if _is(host, "rhel", "fedora", "centos"):
        stream = f"{branch}-{'open' if is_open else 'dkms'}"
        return (f"sudo dnf module install -y nvidia-driver:{stream}", "sudo reboot")
    if _is(host, "suse"):
        package = "nvidia-open-driver-G06-signed" if is_open else "nvidia-driver-G06"
        return (f"sudo zypper install -y {package}-kmp-default", "sudo reboot")
    return (f"# install NVIDIA's driver {branch} ({kind} kernel modules), then reboot",)


def install_toolkit(host: Host) -> tuple[str, ...]:
    """Install or update the container toolkit, whose repository must be configured."""
    if host.distribution is Distribution.TALOS:
        return ("# " + _TALOS.format("siderolabs/nvidia-container-toolkit-lts"),)
    if _is(host, "debian", "ubuntu"):
        command = "sudo apt-get update && sudo apt-get install -y nvidia-container-toolkit"
    elif _is(host, "rhel", "fedora", "centos"):
        command = "sudo dnf install -y nvidia-container-toolkit"
    elif _is(host, "suse"):
        command = "sudo zypper install -y nvidia-container-toolkit"
    else:
        command = "# install nvidia-container-toolkit for this system"
    return (f"# NVIDIA's package repository must be set up: {_DOCS}", command)


def configure_runtime(host: Host) -> tuple[str, ...]:
    """Give the container runtime NVIDIA's handler, in the way of the distribution."""
    restart = restart_runtime(host)
    match host.distribution:
        case Distribution.K3S | Distribution.RKE2:
            return (
                f"# {host.distribution} looks for NVIDIA's runtime each time it starts",
                restart,
            )
        case Distribution.MICROK8S:
            return ("sudo microk8s enable nvidia --gpu-operator-driver host",)
        case Distribution.TALOS:
            return install_toolkit(host)
        case Distribution.K0S:
            arguments = "--runtime=containerd --config=/etc/k0s/containerd.d/nvidia.toml"
        case Distribution.UPSTREAM:
            arguments = f"--runtime={'crio' if host.runtime.kind == 'cri-o' else 'containerd'}"
        case _:
            assert_never(host.distribution)
    return (f"sudo nvidia-ctk runtime configure {arguments}", restart)


def refresh_cdi() -> tuple[str, ...]:
    """Write CDI specs now, and at every change of the driver."""
    return (
        "sudo systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service"
        "  # toolkit 1.18 and later",
        "sudo nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml  # earlier ones",
    )


def patch_plugin(name: str, patch: str) -> str:
    """Change the pod template of a DaemonSet, named with its namespace."""
    namespace, _, daemonset = name.partition("/")
    return (
        f"kubectl -n {namespace} patch daemonset {daemonset} --type=merge"
        f' -p \'{{"spec":{{"template":{{"spec":{patch}}}}}}}\''
    )


def node_of(facts: Facts) -> str:
    """Return the node's name for a command, a placeholder where it is not known."""
    return facts.cluster.node or "NODE"


def _is(host: Host, *names: str) -> bool:
    return any(name in host.os_family.split() or name in host.os_family for name in names)
