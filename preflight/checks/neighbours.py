"""What else in the cluster has to do with GPUs or with new pods, and how to live with each.

Whoever gives the same GPUs away is broken or a warning, for two ledgers never agree; whoever only
looks on is fine.
"""

from __future__ import annotations

from doctor.findings import Result, broken, not_applicable, ok, unknown, warning
from preflight.question import Check
from preflight.surroundings import RESOURCE, PodWebhook, Surroundings, Workload

_SYSTEM = "gpudetour-system"
_ABSENT = "not here"
_MOST_NAMES = 4


def _plugin(seen: Surroundings) -> Result:
    if seen.workloads is None:
        return unknown("DaemonSets cannot be read")
    found = [each for each in seen.workloads if each.is_nvidia_plugin and not each.is_of_operator]
    if not found:
        return not_applicable(_ABSENT)
    static = [each for each in found if each.kind == "Pod"]
    how = "a static pod" if static else "a DaemonSet"
    return ok(
        f"{_named(found)}: keep it, as {how} it may stay. Where it serves a node, our agent stands"
        " aside; where it fails, ours takes the resource over and running pods keep their GPUs",
    )


def _operator(seen: Surroundings) -> Result:
    found = (*seen.running("gpu-operator"), *(w for w in seen.workloads or () if w.is_of_operator))
    if not found and not seen.has_group("nvidia.com"):
        return not_applicable(_ABSENT)
    where = _named(list(found)) if found else "its ClusterPolicy is served, its Deployment is not"
    return ok(
        f"{where}: keep it for driver, toolkit and metrics. Its plugin may stay, as any other; to"
        " let our agent serve all GPUs, set devicePlugin.enabled to false in its ClusterPolicy"
    )


def _discovery(seen: Surroundings) -> Result:
    found = seen.running("gpu-feature-discovery", "node-feature-discovery")
    if not found:
        return not_applicable(_ABSENT)
    return ok(f"{_named(list(found))}: keep it; its labels and ours have different names")


def _exporter(seen: Surroundings) -> Result:
    found = seen.running("dcgm-exporter")
    if not found:
        return not_applicable(_ABSENT)
    return ok(
        f"{_named(list(found))}: keep it. Without a device plugin it cannot name pods; join its"
        " metrics with ours by the GPU's UUID (docs/operations.md)"
    )


def _hami(seen: Surroundings) -> Result:
    found = seen.running("hami", "vgpu-scheduler")
    hooks = _hooks(seen, "hami", "vgpu")
    if not found and not hooks:
        return not_applicable(_ABSENT)
    where = _named(list(found)) or f"webhook {hooks[0].configuration}"
    return broken(
        f"{where}: HAMi takes every pod that asks for {RESOURCE} to its own scheduler and ledger,"
        " so both would give the same GPUs away",
        "# choose one of the two for the cluster: docs/choosing.md tells how to move from HAMi",
        "helm list -A | grep -i hami",
    )


def _volcano(seen: Surroundings) -> Result:
    found = seen.running("volcano-scheduler", "volcano-vgpu", "vc-scheduler")
    if not found and not seen.has_group("scheduling.volcano.sh", "batch.volcano.sh"):
        return not_applicable(_ABSENT)
    devices = seen.running("volcano-vgpu")
    if devices:
        return broken(
            f"{_named(list(devices))}: Volcano's vGPU plugin gives the GPUs of its nodes away",
            "# remove it, or keep our agent off its nodes by the chart's nodeAgent.nodeSelector",
        )
    return warning(
        f"{_named(list(found)) or 'its API is served'}: Volcano places pods by a scheduler of its"
        " own, which never asks our extender. Its GPU pods count as held; on annotation-path nodes"
        " they get none",
        "# leave schedulerName out of pods that ask for GPUs, or write the extender into Volcano's"
        " own configuration",
    )


def _kai(seen: Surroundings) -> Result:
    found = seen.running("kai-scheduler")
    if not found and not seen.has_group("kai.scheduler"):
        return not_applicable(_ABSENT)
    return _other_scheduler(found, "KAI")


def _runai(seen: Surroundings) -> Result:
    found = seen.running("runai-scheduler", "runai-operator", "runai-cluster")
    if not found and not seen.has_group("run.ai"):
        return not_applicable(_ABSENT)
    return _other_scheduler(found, "Run:ai")


def _other_scheduler(found: tuple[Workload, ...], name: str) -> Result:
    return warning(
        f"{_named(list(found)) or 'its API is served'}: {name} places its pods by a scheduler of"
        " its own, and shares of GPUs behind a reservation pod. On nodes that a device plugin"
        " serves its pods count as held; on annotation-path nodes they get no GPU",
        f"# give {name} nodes that a device plugin serves, and keep our agent off them by the"
        " chart's nodeAgent.nodeSelector",
    )


def _dra(seen: Surroundings) -> Result:
    if seen.extended_classes:
        return warning(
            f"DeviceClass {seen.extended_classes[0]} stands for {RESOURCE}: dynamic resource"
            " allocation serves the standard request in the whole cluster, so our agents stand"
            " aside everywhere",
            "# nothing to install for these GPUs; to use gpudetour, remove extendedResourceName:",
            f"kubectl edit deviceclass {seen.extended_classes[0]}",
        )
    if seen.slices:
        return ok(
            f"{seen.slices} ResourceSlices of gpu.nvidia.com: on their nodes NVIDIA's DRA driver"
            " serves claims and our agent stands aside; other nodes are ours"
        )
    return not_applicable(_ABSENT)


def _kueue(seen: Surroundings) -> Result:
    found = seen.running("kueue-controller", "kueue-manager")
    if not found and not seen.has_group("kueue.x-k8s.io"):
        return not_applicable(_ABSENT)
    return ok(
        f"{_named(list(found)) or 'its API is served'}: keep it. It counts {RESOURCE}, which our"
        " webhook never renames, and its gated pods come to the scheduler when it lets them"
    )


def _health(seen: Surroundings) -> Result:
    found = seen.running("node-problem-detector", "nvsentinel")
    if not found:
        return not_applicable(_ABSENT)
    return ok(
        f"{_named(list(found))}: keep it. Nodes that it taints or cordons are left out by"
        " kube-scheduler before our extender is asked"
    )


def _autoscaler(seen: Surroundings) -> Result:
    found = seen.running("cluster-autoscaler", "karpenter")
    if not found and not seen.has_group("karpenter.sh"):
        return not_applicable(_ABSENT)
    return warning(
        f"{_named(list(found)) or 'its API is served'}: it waits until a new node offers"
        f" {RESOURCE}. On the plugin path our agent makes it so; a node on the annotation path"
        " never offers it, and may be taken for one that never came up",
        "# keep the annotation path to nodes that no autoscaler adds",
    )


def _webhooks(seen: Surroundings) -> Result:
    if seen.webhooks is None:
        return unknown("MutatingWebhookConfigurations cannot be read")
    others = [each for each in seen.webhooks if not each.service.startswith(f"{_SYSTEM}/")]
    if not others:
        return ok("no other webhook changes new pods")
    names = sorted({each.configuration for each in others})
    return ok(
        f"{_list(names)} see new pods and may change them. Ours is asked again when a"
        " later one changed a pod; GPU pods that lost what ours wrote are refused with a reason"
    )


def _hooks(seen: Surroundings, *marks: str) -> list[PodWebhook]:
    return [
        each
        for each in seen.webhooks or ()
        if any(mark in f"{each.configuration} {each.name} {each.service}" for mark in marks)
    ]


def _named(found: list[Workload]) -> str:
    return _list(list(dict.fromkeys(str(each) for each in found)))


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


CHECKS = (
    Check(
        id="nvidia-plugin",
        title="NVIDIA's device plugin and ours can share the cluster",
        why="kubelet takes one plugin for a resource, the one that registered last",
        look=_plugin,
    ),
    Check(
        id="gpu-operator",
        title="The GPU Operator does not work against us",
        why="it puts back what it manages",
        look=_operator,
    ),
    Check(
        id="feature-discovery",
        title="Labels of GPU nodes have one writer each",
        why="selectors read them",
        look=_discovery,
    ),
    Check(
        id="dcgm-exporter",
        title="GPU metrics go on",
        why="dashboards read them",
        look=_exporter,
    ),
    Check(
        id="hami",
        title="HAMi is not there",
        why="it and gpudetour answer the same request",
        look=_hami,
    ),
    Check(
        id="volcano",
        title="Volcano gives no GPUs away",
        why="two ledgers of the same GPUs never agree",
        look=_volcano,
    ),
    Check(
        id="kai",
        title="KAI has GPUs of its own",
        why="two schedulers of the same GPUs meet at kubelet, where the later pod fails",
        look=_kai,
    ),
    Check(
        id="runai",
        title="Run:ai has GPUs of its own",
        why="two schedulers of the same GPUs meet at kubelet, where the later pod fails",
        look=_runai,
    ),
    Check(
        id="dra",
        title="Dynamic resource allocation leaves the standard request alone",
        why="where it serves the request, device plugins and we must not",
        look=_dra,
    ),
    Check(
        id="kueue",
        title="Kueue sees what it counts",
        why="queues and quota go by the request",
        look=_kueue,
    ),
    Check(
        id="node-health",
        title="Whoever watches nodes is listened to",
        why="a node that somebody took out must get no pods",
        look=_health,
    ),
    Check(
        id="autoscaler",
        title="No autoscaler waits for what never comes",
        why="it deletes nodes that do not offer what it bought them for",
        look=_autoscaler,
    ),
    Check(
        id="pod-webhooks",
        title="Other webhooks leave our changes alone",
        why="webhooks are called one after the other, and the last one wins",
        look=_webhooks,
    ),
)
