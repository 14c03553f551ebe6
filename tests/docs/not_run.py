"""Commands of the docs that nothing here can run or look up, and why. Each must be in the docs."""

from __future__ import annotations

import re

_HOST = "changes the machine that it is typed on"
_DISTRIBUTION = "a program of a distribution that cannot be had here"
_NODE = "a node's own program"

NOT_RUN: dict[str, str] = {
    r"systemctl restart (k3s|rke2-server|k0sworker|k0scontroller)": _HOST,
    r"apt-get install -y \S+": _HOST,
    r"snap restart microk8s\.\S+": _DISTRIBUTION,
    r"microk8s (enable nvidia|config|ctr images import).*": _DISTRIBUTION,
    r"k0s (kubeconfig admin|ctr -n k8s\.io images import \S+)": _DISTRIBUTION,
    r"k3s ctr images import \S+\.tar": _DISTRIBUTION,
    r"/var/lib/rancher/rke2/bin/ctr -a \S+ -n k8s\.io images import \S+\.tar": _DISTRIBUTION,
    r"talosctl -n NODE patch machineconfig --patch @\S+": _DISTRIBUTION,
    r"kind load image-archive \S+": _DISTRIBUTION,
    r"kubeadm init phase control-plane scheduler --config \S+": _DISTRIBUTION,
    r"nvidia-ctk runtime configure .*": _NODE,
    r"chown -R kube-scheduler /etc/k0s/gpudetour": _HOST,
    r"rm -r /(etc|var)/\S+/gpudetour": _HOST,
    r"docker build -f image/Dockerfile .*": "a container engine; tests/image does what it would do",
    r"jq .*": "a program of its own, for what ours prints as JSON",
    r"grep nvidia /var/lib/rancher/\S+": _HOST,
}


def reason(text: str) -> str | None:
    """Why a command is not run; None where it is to be."""
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, text)), None)
