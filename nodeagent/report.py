"""What people and the extender are told about the node: annotations, condition, Events. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpus.annotations import (
    IN_USE,
    INVENTORY,
    PATH,
    PATH_REASON,
    SUMMARY,
    encode_in_use,
    encode_inventory,
)
from gpus.model import DeviceId, Gpu, Health, NodeInventory, Path, PodUid
from kube.events import EventType
from nodeagent.deviceplugin.devices import Device, Offering
from nodeagent.inventory.standing import cause_of
from nodeagent.labels import node_labels, own_labels
from nodeagent.offer_labels import as_offered
from nodeagent.path import Cause, Decision
from nodeagent.publisher import Condition, Wanted

#: An unhealthy GPU says why; a driver's text may be long, and the annotation has a limit.
_MAX_REASON = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An Event about the node."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOffer:
    """How our device plugin offers the GPUs, and what it lists of them."""

    offering: Offering
    devices: Sequence[Device]


def wanted(
    decision: Decision,
    inventory: NodeInventory | None,
    *,
    in_use: Mapping[DeviceId, PodUid],
    held: Collection[DeviceId],
    plugin: OwnOffer | None = None,
) -> Wanted:
    """Return what the Node should say; of a node that never had a GPU, one line for people.

    `in_use` is what kubelet gave to pods, `held` what pods hold on either path, and `plugin` what
    our own device plugin makes of the GPUs, where that is not one device each.
    """
    if decision.cause is Cause.NO_GPU and (inventory is None or not inventory.gpus):
        return Wanted(annotations={SUMMARY: _cut("; ".join([decision.reason, *_why(inventory)]))})
    known = inventory is not None and bool(inventory.gpus)
    annotations = {
        PATH: str(decision.path),
        PATH_REASON: _cut(decision.reason),
        SUMMARY: summary(decision, inventory, held=held, plugin=plugin),
    }
    if in_use:
        annotations[IN_USE] = encode_in_use(in_use)
    if inventory is not None and known:
        annotations[INVENTORY] = encode_inventory(inventory)
    features = node_labels(inventory) if inventory is not None else {}
    if inventory is not None and plugin is not None and decision.cause is Cause.OWN_PLUGIN:
        features = as_offered(features, inventory, plugin.offering)
    return Wanted(
        annotations=annotations,
        labels=own_labels(inventory),
        features=features,
        condition=Condition(
            status=_is_served(decision) and not _all_unhealthy(decision, inventory),
            reason=str(decision.cause),
            message=_cut("; ".join([decision.reason, *_unhealthy(inventory)])),
        ),
    )


def summary(
    decision: Decision,
    inventory: NodeInventory | None,
    *,
    held: Collection[DeviceId],
    plugin: OwnOffer | None = None,
) -> str:
    """Return one line: `2 x NVIDIA GeForce RTX 4090, 1 free, driver 580.95.05, path plugin`.

    What is free is more than a service to readers: kube-scheduler tries pods that an extender
    rejected again when a Node changes. It hears that a pod is gone at the same moment as the
    extender, may ask it an instant too early, and would not ask again for minutes.
    """
    gpus = inventory.gpus if inventory is not None else ()
    models = Counter(gpu.product or "unknown GPU" for gpu in gpus)
    parts = [f"{count} x {model}" for model, count in models.items()] or ["GPUs not readable here"]
    if inventory is not None and decision.path in (Path.PLUGIN, Path.ANNOTATION):
        able = [device for gpu, device, _ in inventory.devices() if gpu.health is Health.HEALTHY]
        if plugin is not None and decision.cause is Cause.OWN_PLUGIN:
            able = [device.id for device in plugin.devices if device.healthy]
        parts.append(f"{sum(device not in held for device in able)} free")
    states = Counter(str(gpu.health) for gpu in gpus if gpu.health is not Health.HEALTHY)
    parts += [f"{count} {state}" for state, count in sorted(states.items())]
    if inventory is not None and inventory.withheld:
        parts.append(f"{len(inventory.withheld)} withheld")
    if inventory is not None and inventory.driver:
        parts.append(f"driver {inventory.driver}")
    parts.append(f"path {decision.path}")
    return _cut(", ".join(parts))


def path_event(decision: Decision, *, before: str | None) -> Message | None:
    """Return the Event for a change of path; `before` is the cause that the Node shows now."""
    if before == decision.cause or decision.cause is Cause.REGISTERING:
        return None
    return Message(
        type="Normal" if _is_served(decision) else "Warning",
        reason="GPUPathChanged",
        message=f"GPUs are on path {decision.path}: {decision.reason}",
    )


def _is_served(decision: Decision) -> bool:
    """Tell whether pods get GPUs here, be it without us."""
    return decision.path in (Path.PLUGIN, Path.ANNOTATION) or decision.cause is Cause.DRA


def health_events(before: NodeInventory | None, after: NodeInventory | None) -> Iterator[Message]:
    """Yield an Event for each GPU whose health changed, that is new and unhealthy, or is gone.

    They hold no time and no count, so that what happens again is counted and not repeated.
    """
    was = {gpu.uuid: gpu.health for gpu in before.gpus} if before is not None else {}
    for gpu in after.gpus if after is not None else ():
        if gpu.health is was.get(gpu.uuid, Health.HEALTHY):
            continue
        yield _health_event(gpu)
    if before is not None and after is not None:
        yield from _gone_events(before, after)


def _gone_events(before: NodeInventory, after: NodeInventory) -> Iterator[Message]:
    there = {gpu.uuid for gpu in after.gpus}
    withheld = {each.uuid: each.reason for each in after.withheld}
    for gpu in before.gpus:
        if gpu.uuid not in there:
            reason = withheld.get(gpu.uuid, "it is no longer in this node")
            yield Message(
                type="Warning", reason="GPUGone", message=_cut(f"{_name(gpu)} is gone: {reason}")
            )


def _all_unhealthy(decision: Decision, inventory: NodeInventory | None) -> bool:
    """Tell whether we give out the GPUs and none can be given out."""
    if decision.cause not in (Cause.OWN_PLUGIN, Cause.ANNOTATIONS) or inventory is None:
        return False
    return not any(gpu.health is Health.HEALTHY for gpu in inventory.gpus)


def _unhealthy(inventory: NodeInventory | None) -> Iterator[str]:
    for gpu in inventory.gpus if inventory is not None else ():
        if gpu.health is not Health.HEALTHY:
            yield f"{_name(gpu)} is {gpu.health}: {cause_of(gpu.health_reason)}"


def _why(inventory: NodeInventory | None) -> Iterator[str]:
    """Yield what keeps the GPUs that are there from being given out."""
    for each in inventory.withheld if inventory is not None else ():
        name = each.uuid or each.bdf
        yield f"GPU {name}: {each.reason}" if name else each.reason


def _name(gpu: Gpu) -> str:
    return f"GPU {gpu.index} ({gpu.uuid})"


def _health_event(gpu: Gpu) -> Message:
    name = _name(gpu)
    if gpu.health is Health.HEALTHY:
        return Message(type="Normal", reason="GPUHealthy", message=f"{name} is healthy again")
    return Message(
        type="Warning",
        reason="GPUUnhealthy",
        message=_cut(f"{name} is {gpu.health}: {cause_of(gpu.health_reason)}; no new pod gets it"),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"
