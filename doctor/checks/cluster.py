"""What the cluster holds of the node: its resource, its runtime class, who serves it."""

from __future__ import annotations

import re

from doctor import remedies
from doctor.facts.facts import RESOURCE, Facts
from doctor.facts.runtime import HANDLER
from doctor.findings import Check, Need, Result, broken, not_applicable, ok, unknown, warning
from gpus.annotations import PATH_CONDITION, PATH_REASON

CLUSTER_GPU = frozenset({Need.CLUSTER, Need.GPU})
_REMOVE_KEY = (
    "kubectl patch node {} --subresource=status --type=json -p '["
    '{{"op":"remove","path":"/status/capacity/nvidia.com~1gpu"}},'
    '{{"op":"remove","path":"/status/allocatable/nvidia.com~1gpu"}}]\''
)
#: Whole GPUs, MIG instances of the mixed strategy, slices where they are renamed.
_SERVES_GPUS = re.compile(r"nvidia\.com/(?:gpu|gpu\.shared|mig-[a-z0-9.-]+)")
_SERVED_BY_US = ("plugin", "annotation")
_AGENT_LOG = "kubectl -n gpudetour-system logs -l app.kubernetes.io/name=gpudetour-node-agent"


def advertised(facts: Facts) -> int:
    """Return how many GPUs, MIG instances and time slices kubelet offers to pods now."""
    offered = facts.cluster.allocatable
    return sum(_count(offered[name]) for name in offered if _SERVES_GPUS.fullmatch(name))


def _count(quantity: str) -> int:
    return int(quantity) if quantity.isdecimal() and len(quantity) < 10 else 0


def _ready(facts: Facts) -> Result:
    ready = [c for c in facts.cluster.conditions if c.type == "Ready"]
    if ready and ready[0].status == "True":
        return ok("the node is Ready")
    told = ready[0].message or ready[0].reason if ready else "no such condition"
    return broken(
        f"the node is not Ready: {told[:160]}",
        f"kubectl describe node {facts.cluster.node}",
        "sudo journalctl -u kubelet -u k3s -u k3s-agent -n 100",
    )


def _class_present(facts: Facts) -> Result:
    classes = facts.cluster.runtime_classes
    if classes is None:
        return unknown("RuntimeClasses could not be read")
    wanted = {p.runtime_class for p in facts.plugins_here() if p.runtime_class} or {HANDLER}
    missing = sorted(wanted - set(classes))
    if not missing:
        return ok(f"RuntimeClasses {', '.join(sorted(wanted))}")
    used = [p.name for p in facts.plugins_here() if p.runtime_class in missing]
    if not used and (advertised(facts) or facts.own_cdi() or facts.cluster.slices):
        return ok("no RuntimeClass for NVIDIA, and GPUs are offered without one")
    name = missing[0]
    saw = f'there is no RuntimeClass "{name}"' + (f", which {used[0]} names" if used else "")
    return broken(
        saw,
        "printf 'apiVersion: node.k8s.io/v1\\nkind: RuntimeClass\\nmetadata: {name: "
        f"{name}}}\\nhandler: {name}\\n' | kubectl apply -f -",
    )


def _class_handler(facts: Facts) -> Result:
    if not facts.host.was_read:
        return not_applicable("the node's files were not looked at")
    classes = facts.cluster.runtime_classes or {}
    used = {HANDLER} | {p.runtime_class for p in facts.plugins_here()}
    handlers = facts.host.runtime.handlers
    for name in sorted(used & set(classes)):
        if classes[name] not in handlers and not facts.own_cdi():
            return broken(
                f'RuntimeClass "{name}" asks for handler "{classes[name]}", which'
                f" {facts.host.runtime.kind or 'the runtime'} does not have",
                *remedies.configure_runtime(facts.host),
            )
    return ok("the handlers of NVIDIA's RuntimeClasses exist on the node")


def _zero(facts: Facts) -> Result:
    cluster = facts.cluster
    if cluster.capacity.get(RESOURCE) != "0" and cluster.allocatable.get(RESOURCE) != "0":
        return ok("no zero is left in the node's status")
    if advertised(facts):
        return ok(f"no whole {RESOURCE} here: its GPUs are offered as MIG instances or slices")
    capacity = cluster.capacity.get(RESOURCE, "0")
    if capacity != "0":
        return broken(
            f"capacity is {capacity} and allocatable 0: the plugin died in the last 5 minutes, or"
            " calls every GPU unhealthy",
            "kubectl get pods -A -o wide | grep -i device-plugin",
            "# install gpudetour's agent, which takes the resource over at once",
        )
    return broken(
        f"{RESOURCE} is 0, left behind by a plugin that is gone or found nothing: kubelet answers"
        f" OutOf{RESOURCE} to every GPU pod",
        "# gpudetour's agent removes it by itself; by hand, 5 minutes after the plugin stopped:",
        _REMOVE_KEY.format(cluster.node),
    )


def _unhealthy(facts: Facts) -> Result:
    capacity = _count(facts.cluster.capacity.get(RESOURCE, "0"))
    offered = _count(facts.cluster.allocatable.get(RESOURCE, "0"))
    if not offered or offered >= capacity:
        return ok(f"{offered} of {capacity} GPUs can be given out")
    return warning(
        f"{offered} of {capacity} GPUs can be given out: the plugin calls the others unhealthy, and"
        " NVIDIA's never takes that back",
        "kubectl get pods -A -o wide | grep -i device-plugin",
        "# delete its pod here, once the GPU is well",
        "sudo dmesg | grep 'NVRM: Xid'",
    )


def _advertised(facts: Facts) -> Result:
    cluster = facts.cluster
    if count := advertised(facts):
        return ok(f"{count} GPUs, MIG instances or slices")
    if facts.path() == "annotation":
        return ok("gpudetour's annotation path serves this node")
    if cluster.slices:
        return ok(f"DRA serves this node with {cluster.slices} ResourceSlices")
    if not facts.host.was_read and not facts.is_gpu_node():
        return warning(
            f"the node offers no {RESOURCE}; the API does not tell whether it has a GPU",
            "sudo gpudetour doctor  # on the node itself",
        )
    who = "NVIDIA's plugin is" if facts.plugins_here() else "no device plugin is"
    return broken(
        f"the node offers no {RESOURCE}; {who} on it, and gpudetour's path is"
        f" {facts.path() or 'not set'}",
        "kubectl apply -f manifests/kubeadm.yaml  # gpudetour serves the GPUs itself",
        f"kubectl describe node {cluster.node}",
    )


def _condition(facts: Facts) -> Result:
    found = [c for c in facts.cluster.conditions if c.type == PATH_CONDITION]
    if not found:
        return not_applicable("gpudetour's agent has not reported from this node")
    reason = facts.cluster.annotations.get(PATH_REASON, "") or found[0].message
    if found[0].status != "False":
        return ok(f"path {facts.path() or 'unknown'}: {reason[:160]}")
    return broken(f"gpudetour's agent says: {reason[:200]}", f"{_AGENT_LOG} --tail=50")


def _dra(facts: Facts) -> Result:
    cluster = facts.cluster
    if not cluster.extended_classes and not cluster.slices:
        return not_applicable("DRA offers no GPUs here")
    plugins = [plugin.name for plugin in facts.plugins_here()]
    if not plugins:
        return ok("DRA serves the GPUs alone")
    offer = f"DeviceClass {cluster.extended_classes[0]}" if cluster.extended_classes else "DRA"
    return broken(
        f"{offer} and the plugin {plugins[0]} both give the GPUs of this node away",
        f"kubectl -n {plugins[0].partition('/')[0]} delete daemonset"
        f" {plugins[0].partition('/')[2]}  # or remove NVIDIA's DRA driver",
    )


def no_plugin_needed(facts: Facts) -> bool:
    """Tell whether GPUs are served by somebody else than NVIDIA's plugin."""
    return facts.path() in _SERVED_BY_US or bool(facts.cluster.slices)


_BELOW = (
    "gpu-present",
    "driver-loaded",
    "driver-library",
    "driver-library-version",
    "nvml",
    "kubelet-socket",
    "nvidia-handler",
    "handler-binary",
    "toolkit-installed",
    "toolkit-runc",
    "plugin-runtime-class",
    "plugin-version",
    "plugin-list-strategy",
    "plugin-discovery-strategy",
    "plugin-config",
    "plugin-config-key",
    "plugin-libraries",
    "plugin-affinity",
    "plugin-taints",
    "plugin-pod",
    "log-incompatible-strategy",
    "log-strategy",
    "log-config",
    "log-library-conflict",
    "log-no-devices",
    "log-driver",
)

CHECKS = (
    Check(
        id="node-ready",
        title="The node is Ready",
        why="nothing is scheduled to it otherwise, with or without GPUs",
        look=_ready,
        needs=frozenset({Need.CLUSTER}),
        causes=("containerd-config", "containerd-cri", "default-runtime"),
    ),
    Check(
        id="runtimeclass-present",
        title="The RuntimeClass for NVIDIA exists",
        why="pods that name a missing RuntimeClass are refused",
        look=_class_present,
        needs=CLUSTER_GPU,
    ),
    Check(
        id="runtimeclass-handler",
        title="The RuntimeClass has its handler on the node",
        why='pods hang in ContainerCreating: "no runtime for nvidia is configured". K3s creates'
        " the RuntimeClass whether the handler is there or not",
        look=_class_handler,
        needs=CLUSTER_GPU,
        causes=("nvidia-handler", "containerd-config"),
    ),
    Check(
        id="dra-conflict",
        title="Device plugin and DRA do not serve the same GPUs",
        why="neither knows what the other gave away",
        look=_dra,
        needs=CLUSTER_GPU,
    ),
    Check(
        id="stale-zero",
        title="No stale zero stands in the node's status",
        why="with the key at 0 kubelet refuses GPU pods, and kills running ones when it restarts;"
        " without the key it lets them run",
        look=_zero,
        needs=CLUSTER_GPU,
        causes=_BELOW,
    ),
    Check(
        id="gpus-unhealthy",
        title="All GPUs of the node can be given out",
        why="NVIDIA's plugin marks a GPU unhealthy once and for all",
        look=_unhealthy,
        needs=CLUSTER_GPU,
    ),
    Check(
        id="gpu-advertised",
        title="The node offers its GPUs",
        why="it is what the scheduler counts",
        look=_advertised,
        needs=CLUSTER_GPU,
        causes=(*_BELOW, "stale-zero"),
    ),
    Check(
        id="agent-condition",
        title="gpudetour's agent is content",
        why="it looks at the node every few seconds and says what it waits for",
        look=_condition,
        needs=frozenset({Need.CLUSTER}),
        causes=(*_BELOW, "stale-zero", "gpu-advertised"),
    ),
)
