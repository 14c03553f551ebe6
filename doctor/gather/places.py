"""Where each distribution of Kubernetes keeps things. A table, and how to tell which one it is."""

from __future__ import annotations

from dataclasses import dataclass

from doctor.facts.host import Distribution
from doctor.gather.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Paths below the root; `marks` are files by which the distribution is known.

    `templates` lie beside the rendered configuration, `drop_ins` may hold more of it, and
    `services` are units to restart, with the file by which each is known.
    """

    marks: tuple[str, ...]
    config: str
    drop_ins: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    kubelet: str = "/var/lib/kubelet"
    services: tuple[tuple[str, str], ...] = ()


def _rancher(name: str) -> Places:
    folder = f"/var/lib/rancher/{name}/agent/etc/containerd"
    agent, server = ("k3s-agent", "k3s") if name == "k3s" else ("rke2-agent", "rke2-server")
    return Places(
        marks=(f"/var/lib/rancher/{name}/agent", f"/etc/rancher/{name}/config.yaml"),
        config=f"{folder}/config.toml",
        drop_ins=(f"{folder}/config.toml.d", f"{folder}/config-v3.toml.d"),
        templates=(f"{folder}/config.toml.tmpl", f"{folder}/config-v3.toml.tmpl"),
        sockets=("/run/k3s/containerd/containerd.sock",),
        services=tuple(
            (f"{where}/{unit}.service", unit)
            for unit in (agent, server)
            for where in ("/etc/systemd/system", "/usr/local/lib/systemd/system")
        ),
    )


PLACES: dict[Distribution, Places] = {
    Distribution.K3S: _rancher("k3s"),
    Distribution.RKE2: _rancher("rke2"),
    Distribution.MICROK8S: Places(
        marks=("/var/snap/microk8s/current",),
        config="/var/snap/microk8s/current/args/containerd.toml",
        templates=("/var/snap/microk8s/current/args/containerd-template.toml",),
        sockets=("/var/snap/microk8s/common/run/containerd.sock",),
        kubelet="/var/snap/microk8s/common/var/lib/kubelet",
        services=(("/var/snap/microk8s/current", "snap.microk8s.daemon-containerd"),),
    ),
    Distribution.K0S: Places(
        marks=("/var/lib/k0s", "/etc/k0s/containerd.toml"),
        config="/etc/k0s/containerd.toml",
        drop_ins=("/etc/k0s/containerd.d",),
        sockets=("/run/k0s/containerd.sock",),
        kubelet="/var/lib/k0s/kubelet",
        services=(
            ("/etc/systemd/system/k0sworker.service", "k0sworker"),
            ("/etc/systemd/system/k0scontroller.service", "k0scontroller"),
        ),
    ),
    Distribution.TALOS: Places(
        marks=("/etc/cri/containerd.toml",),
        config="/etc/cri/containerd.toml",
        drop_ins=("/etc/cri/conf.d",),
        sockets=("/run/containerd/containerd.sock",),
    ),
    Distribution.UPSTREAM: Places(
        marks=(),
        config="/etc/containerd/config.toml",
        # The second is where toolkit 1.18.0 wrote by mistake (nvidia-container-toolkit#1404).
        drop_ins=("/etc/containerd/conf.d", "/etc/containerd/config.d"),
        sockets=("/run/containerd/containerd.sock",),
        services=(("/", "containerd"),),
    ),
}

CRIO_CONFIG = "/etc/crio/crio.conf"
CRIO_DROP_INS = "/etc/crio/crio.conf.d"
CRIO_SOCKET = "/run/crio/crio.sock"


def distribution_of(tree: Tree) -> Distribution:
    """Tell by its files which distribution runs on a node."""
    for distribution, places in PLACES.items():
        if any(tree.exists(mark) for mark in places.marks):
            return distribution
    return Distribution.UPSTREAM


def service_of(tree: Tree, places: Places) -> str:
    """Return the unit whose restart restarts the container runtime, empty where there is none."""
    return next((unit for file, unit in places.services if tree.exists(file)), "")
