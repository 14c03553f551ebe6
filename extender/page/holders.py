"""Who has which device of one node: by assignment, by a bind under way, or by what kubelet says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from extender.placement.devices import Devices
from extender.placement.facts import NodeFacts
from extender.placement.layout import bits
from extender.placement.state import NodeState
from gpus.model import GPU_MEMORY_RESOURCE, DeviceId, PodUid

#: NVIDIA's plugin tells replicas of a time-sliced GPU apart behind this.
_REPLICA = "::"


class Stage(StrEnum):
    """How far a pod is with a device that is not simply its own."""

    #: Chosen a moment ago; nobody is bound yet (a hold).
    KEPT = "kept"
    #: The Binding is on the way (a reservation).
    BINDING = "binding"
    #: The pod is being deleted, and holds it until it is gone.
    LEAVING = "leaving"


class Holder(Struct, frozen=True, omit_defaults=True):
    """A pod by `namespace/name`, or, where only kubelet knows it, by its UID alone.

    `share` is the part of the GPU's memory in bytes; 0: the whole device.
    """

    pod: str = ""
    uid: str = ""
    share: int = 0
    stage: Stage | None = None
    #: It has one of several turns at the device (time-slicing), however many there are.
    turn: bool = False


Holders = Mapping[DeviceId, Sequence[Holder]]


def holders_of(state: NodeState, facts: NodeFacts, devices: Devices) -> Holders:
    """Return who has each device; devices that nobody has are left out."""
    found: defaultdict[DeviceId, dict[str, Holder]] = defaultdict(dict)
    for device, holder in (*_assigned(state), *_seen(state, facts)):
        for one in _devices(device, devices):
            found[one].setdefault(holder.pod or holder.uid, holder)
    return {device: tuple(holders.values()) for device, holders in found.items()}


def _assigned(state: NodeState) -> Iterator[tuple[DeviceId, Holder]]:
    for pod in state.pods.values():
        if pod.assignment is not None:
            stage = Stage.LEAVING if pod.leaving else None
            holder = Holder(pod=pod.key, share=pod.assignment.share_bytes, stage=stage)
            yield from _each(pod.assignment.devices(), holder)
    for reserved in state.reserved.values():
        name = f"{reserved.namespace}/{reserved.name}"
        share = reserved.assignment.share_bytes
        holder = Holder(pod=name, share=share, stage=Stage.BINDING)
        yield from _each(reserved.assignment.devices(), holder)
    for hold in state.holds.values():
        share = hold.totals.get(GPU_MEMORY_RESOURCE, 0)
        holder = Holder(uid=hold.uid, share=share, stage=Stage.KEPT)
        for ids in hold.containers.values():
            yield from _each(ids, holder)


def _seen(state: NodeState, facts: NodeFacts) -> Iterator[tuple[DeviceId, Holder]]:
    """Yield what kubelet gave out, but to pods that are known to have ended."""
    for device, uid in facts.in_use.items():
        if uid not in state.ended:
            name, _, turn = device.partition(_REPLICA)
            yield DeviceId(name), _holder(state, uid, turn=bool(turn))


def _holder(state: NodeState, uid: PodUid, *, turn: bool) -> Holder:
    pod = state.pods.get(uid)
    if pod is None:
        return Holder(uid=uid, turn=turn)
    return Holder(pod=pod.key, stage=Stage.LEAVING if pod.leaving else None, turn=turn)


def _each(ids: Iterable[DeviceId], holder: Holder) -> Iterator[tuple[DeviceId, Holder]]:
    return ((device, holder) for device in ids)


def _devices(named: DeviceId, devices: Devices) -> Sequence[DeviceId]:
    """Return the device, or the instances of a card that was cut up since it was given out."""
    if named in devices.ids:
        return (named,)
    if named in devices.cards:
        instances = devices.layout.instances.get(devices.cards.index(named), 0)
        return [devices.ids[place] for place in bits(instances)]
    return ()
