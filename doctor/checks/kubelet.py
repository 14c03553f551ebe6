"""Kubelet's side: its plugin folder, and what it remembers."""

from __future__ import annotations

import re

from doctor import remedies
from doctor.checks.hardware import HOST_GPU
from doctor.facts.facts import RESOURCE, Facts
from doctor.findings import Check, Result, broken, not_applicable, ok, unknown, warning
from gpus.model import ResourceName

_OWN_PREFIX = "gpudetour"
#: Their plugins serve other resources.
_OTHER_VENDORS = re.compile("intel|i915|xe|amd|rocm|habana|gaudi")
#: NVIDIA's plugin has a socket for each of its resources.
_NVIDIA_PREFIX = "nvidia-"


def _socket(facts: Facts) -> Result:
    kubelet = facts.host.kubelet
    if kubelet.has_socket:
        return ok(f"{kubelet.folder}/kubelet.sock")
    if kubelet.folder in facts.host.unreadable:
        return unknown(f"{kubelet.folder} may not be listed", "sudo gpudetour doctor")
    runtime = facts.host.runtime
    if not kubelet.has_folder and not runtime.config_exists and not runtime.sockets:
        return not_applicable("no Kubernetes on this machine yet")
    return broken(
        f"{kubelet.folder}/kubelet.sock does not exist: kubelet does not run here, or keeps its"
        " plugin folder elsewhere",
        f"systemctl status kubelet {facts.host.service}".strip(),
        "ps -ef | grep -- --root-dir",
    )


def _checkpoint(facts: Facts) -> Result:
    kubelet = facts.host.kubelet
    if not kubelet.checkpoint_fault:
        return ok("kubelet_internal_checkpoint can be read, or is not there yet")
    return broken(
        kubelet.checkpoint_fault[:200],
        f"kubectl drain {remedies.node_of(facts)} --ignore-daemonsets --delete-emptydir-data",
        f"sudo systemctl stop kubelet && sudo rm {kubelet.folder}/kubelet_internal_checkpoint"
        " && sudo systemctl start kubelet",
    )


def _two(facts: Facts) -> Result:
    sockets = facts.host.kubelet.sockets
    gpu = [name for name in sockets if _serves_gpus(name)]
    foreign = [name for name in gpu if not name.startswith(_OWN_PREFIX)]
    if len({_NVIDIA_PREFIX if f.startswith(_NVIDIA_PREFIX) else f for f in foreign}) < 2:
        return ok(f"sockets of GPU plugins: {', '.join(gpu) or 'none'}")
    return broken(
        f"{' and '.join(foreign)}: two plugins serve GPUs, and the last to register wins",
        "kubectl get daemonsets -A -o wide | grep -i -E 'nvidia|gpu'",
        "# keep one of them, then remove the socket that is left",
    )


def _orphans(facts: Facts) -> Result:
    kubelet = facts.host.kubelet
    resource = ResourceName(RESOURCE)
    holders = kubelet.held.get(resource, {})
    if not holders:
        return not_applicable("kubelet has given no GPU to any pod")
    if any(_serves_gpus(name) for name in kubelet.sockets):
        return ok(f"{len(holders)} GPUs given out, and a plugin is there for them")
    return warning(
        f"kubelet remembers {len(holders)} GPUs given out by a plugin that is gone; while their"
        " pods run it refuses new GPU pods",
        "# install gpudetour's agent, which takes the resource over while pods go on",
        f"kubectl get pods -A --field-selector spec.nodeName={remedies.node_of(facts)}",
    )


def _serves_gpus(socket: str) -> bool:
    if socket.startswith(_OWN_PREFIX):
        return True
    return "gpu" in socket and _OTHER_VENDORS.search(socket) is None


CHECKS = (
    Check(
        id="kubelet-socket",
        title="Kubelet's device plugin socket is there",
        why="plugins register on it; the agent falls back to annotations without it",
        look=_socket,
        needs=HOST_GPU,
    ),
    Check(
        id="kubelet-checkpoint",
        title="Kubelet's checkpoint can be read",
        why="kubelet does not start with a broken one, and forgets who holds which GPU",
        look=_checkpoint,
        needs=HOST_GPU,
    ),
    Check(
        id="two-plugins",
        title="One plugin serves the GPUs",
        why="two of them give the same GPU away twice, each thinking it is alone",
        look=_two,
        needs=HOST_GPU,
    ),
    Check(
        id="orphaned-devices",
        title="No GPUs are held through a plugin that is gone",
        why='kubelet answers "cannot allocate unregistered device" to new GPU pods',
        look=_orphans,
        needs=HOST_GPU,
    ),
)
