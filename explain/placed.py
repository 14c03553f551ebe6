"""Why a pod that has its node got these GPUs, and what is wrong with it there. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from explain.causes import Cause
from explain.facts import Event, Facts
from explain.findings import Device, Finding, Placement
from explain.refusals import runtime_class_ends
from extender.placement.facts import PodFacts
from extender.placement.layout import Layouts
from extender.placement.nodes import read_node
from extender.placement.picks import is_connected
from gpus import annotations as contract
from gpus.annotations import AnnotationError
from gpus.model import DeviceId, Gpu, Health, NodeInventory, Path
from gpus.wishes import Topology, Wishes, admits, of_product, read_wishes
from kube.objects import Node, Pod

#: Events of kubelet that say why a pod with a node does not start.
_START = ("FailedCreatePodSandBox", "Failed", "FailedMount", "BackOff", "FailedScheduling")
#: `status.reason` of a pod that kubelet did not take (pkg/kubelet/lifecycle).
_ADMISSION = ("UnexpectedAdmissionError", "OutOf", "NodeAffinity", "Admission")


def placement(facts: Facts, pod: Pod, seen: PodFacts) -> Placement:
    """Return where the pod is, with what, and who chose it."""
    node = next((n for n in facts.nodes or () if n.metadata.name == seen.node), None)
    texts = (node.metadata.annotations or {}) if node is not None else {}
    inventory = _inventory(texts)
    given = _given(seen, texts)
    devices = tuple(_device(name, used, inventory) for name, used in sorted(given.items()))
    path = texts.get(contract.PATH, "")
    by_us = seen.assignment is not None and bool(seen.assignment.containers)
    return Placement(
        node=str(seen.node),
        path=path or (str(Path.ANNOTATION) if by_us else "unknown"),
        devices=devices,
        share_bytes=seen.assignment.share_bytes if seen.assignment is not None else 0,
        chosen=_chosen(pod, seen, by_us=by_us),
        wishes=_wishes(pod, list(given), node, inventory),
        look=tuple(_look(facts, pod, seen, by_us=by_us)),
    )


def findings(facts: Facts, pod: Pod, seen: PodFacts, where: Placement) -> Iterator[Finding]:
    """Yield what keeps a pod that has its node from its GPUs."""
    reason = pod.status.reason
    if pod.status.phase == "Failed" and reason.startswith(_ADMISSION):
        yield Finding(
            cause=Cause.KUBELET_REFUSED,
            saw=f"{reason}: {pod.status.message[:500]}",
            ends=(
                "create the pod again; controllers do so by themselves",
                f"gpudetour doctor --node {where.node}",
            ),
            nodes=(where.node,),
        )
        return
    if seen.ended:
        yield Finding(cause=Cause.ENDED, saw=f"its phase is {pod.status.phase}")
        return
    if pod.status.phase == "Pending":
        yield from _not_started(facts, pod, where)
    if where.path == Path.ANNOTATION and seen.unclear:
        yield Finding(
            cause=Cause.HOLDER_UNKNOWN,
            saw=seen.unclear,
            ends=("delete the pod and create it again; until then its node gets no GPU pods",),
            nodes=(where.node,),
        )
    sick = [each for each in where.devices if each.health not in ("", Health.HEALTHY)]
    if sick:
        yield Finding(
            cause=Cause.UNHEALTHY,
            saw=", ".join(f"{each.uuid} is {each.health}" for each in sick),
            ends=(f"gpudetour doctor --node {where.node}",),
            nodes=(where.node,),
        )


def _not_started(facts: Facts, pod: Pod, where: Placement) -> Iterator[Finding]:
    name = pod.spec.runtime_class_name
    if name and facts.runtime_classes is not None and name not in facts.runtime_classes:
        yield missing_runtime_class(name)
    told = [event for event in facts.events or () if event.reason in _START and _is_bad(event)]
    if told:
        last = max(told, key=lambda each: each.time)
        yield Finding(
            cause=Cause.CANNOT_START,
            saw=f"{last.reason}: {' '.join(last.message.split())[:500]}",
            ends=(f"gpudetour doctor --node {where.node}",),
            nodes=(where.node,),
        )


def _is_bad(event: Event) -> bool:
    return event.type == "Warning" and event.reason != "FailedScheduling"


def missing_runtime_class(name: str) -> Finding:
    """Return that the RuntimeClass of a pod does not exist."""
    return Finding(
        cause=Cause.RUNTIME_CLASS,
        saw=f"spec.runtimeClassName is {name}, and there is no such RuntimeClass",
        ends=runtime_class_ends(name),
    )


def _inventory(texts: Mapping[str, str]) -> NodeInventory | None:
    try:
        return contract.decode_inventory(texts[contract.INVENTORY])
    except (KeyError, AnnotationError):
        return None


def _given(seen: PodFacts, texts: Mapping[str, str]) -> dict[DeviceId, tuple[str, ...]]:
    """Return the devices with the containers that have them; those are not known of kubelet's."""
    if seen.assignment is not None and seen.assignment.containers:
        found: dict[DeviceId, tuple[str, ...]] = {}
        for container, devices in seen.assignment.containers.items():
            for device in devices:
                found[device] = (*found.get(device, ()), container)
        return found
    try:
        holders = contract.decode_in_use(texts[contract.IN_USE])
    except (KeyError, AnnotationError):
        return {}
    return {device: () for device, uid in holders.items() if uid == seen.uid}


def _device(name: DeviceId, used: tuple[str, ...], inventory: NodeInventory | None) -> Device:
    for gpu, device, _ in inventory.devices() if inventory is not None else ():
        if device == name:
            return Device(
                uuid=name,
                containers=used,
                index=gpu.index,
                product=gpu.product,
                memory_bytes=_memory(gpu, device),
                health=str(gpu.health),
            )
    return Device(uuid=name, containers=used)


def _memory(gpu: Gpu, device: DeviceId) -> int | None:
    of_instances = {instance.uuid: instance.memory_bytes for instance in gpu.mig}
    return of_instances.get(device, gpu.memory_bytes)


def _chosen(pod: Pod, seen: PodFacts, *, by_us: bool) -> str:
    policy = (pod.metadata.annotations or {}).get(contract.POLICY)
    if not by_us:
        told = "kubelet chose the GPUs; the extender only counted that so many are free"
        return told if seen.assigned is not None else "kubelet chose the GPUs"
    told = "the extender chose the least capable GPUs that will do"
    if seen.assignment is not None and seen.assignment.share_bytes:
        return f"{told}, one that is shared already first, and there the tightest fit"
    if len(seen.assignment.devices() if seen.assignment is not None else ()) > 1:
        told += ", and of those the best connected set"
    nodes = "emptiest" if policy == "spread" else "fullest"
    return f"{told}, on the {nodes} node that has them (unless the extender's --policy says else)"


def _wishes(
    pod: Pod, given: list[DeviceId], node: Node | None, inventory: NodeInventory | None
) -> dict[str, bool | None]:
    """Tell of each wish whether the devices meet it now; annotations may be edited, GPUs change."""
    annotations = pod.metadata.annotations or {}
    told = [key for key in contract.WISHES if key in annotations and key != contract.POLICY]
    if not told:
        return {}
    wishes, _ = read_wishes(annotations)
    known = {d: gpu for gpu, d, _ in inventory.devices()} if inventory is not None else {}
    if not given or any(device not in known for device in given):
        return dict.fromkeys(told)
    return {key: _met(key, wishes, given, known, node) for key in told}


def _met(
    key: str,
    wishes: Wishes,
    given: list[DeviceId],
    known: Mapping[DeviceId, Gpu],
    node: Node | None,
) -> bool | None:
    alone: Wishes
    match key:
        case contract.PRODUCT:
            return all(of_product(wishes, known[device]) for device in given)
        case contract.UUID:
            alone = Wishes(uuids=wishes.uuids)
        case contract.EXCLUDE_UUID:
            alone = Wishes(excluded=wishes.excluded)
        case contract.MIN_MEMORY:
            alone = Wishes(min_memory=wishes.min_memory)
        case contract.MIN_COMPUTE:
            alone = Wishes(min_compute=wishes.min_compute)
        case _:
            return _connected(wishes.topology, given, node)
    return all(admits(alone, known[d], d, _memory(known[d], d)) for d in given)


def _connected(topology: Topology | None, given: list[DeviceId], node: Node | None) -> bool | None:
    devices = read_node(node, layouts=Layouts()).devices if node is not None else None
    if devices is None:
        return None
    return is_connected(devices.layout, devices.mask(given), topology)


def _look(facts: Facts, pod: Pod, seen: PodFacts, *, by_us: bool) -> Iterator[str]:
    where = f"-n {facts.namespace}"
    yield f"kubectl {where} exec {facts.name} -- nvidia-smi -L"
    claim = (pod.metadata.annotations or {}).get(contract.DEVICES_FROM)
    if by_us and claim:
        yield f"kubectl {where} get configmap {claim} -o yaml"
    yield f"gpudetour gpus | grep {facts.namespace}/{facts.name}"
    yield f"gpudetour doctor --node {seen.node}"
