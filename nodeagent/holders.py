"""Which pods hold which devices, from what kubelet answers and what it has written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from gpus.annotations import is_holder_id
from gpus.model import DeviceId, PodUid
from nodeagent.deviceplugin.devices import device_of
from nodeagent.node import is_served_resource
from nodeagent.podresources.checkpoint import Checkpoint
from nodeagent.podresources.client import Holder, Resources

#: Seconds for which a kubelet that started may not have learnt of its pods yet: until then it
#: lists no holders, though its checkpoint keeps them.
LEARNING = 15.0
#: Strange names that are told; a thousand would say no more.
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Who holds what; of shared devices, `held` names the replicas, `uids` the devices."""

    held: Mapping[DeviceId, Holder | PodUid]
    uids: Mapping[DeviceId, PodUid]
    #: Devices and the containers to which kubelet says it gave them, where it says anything.
    given: frozenset[tuple[DeviceId, Holder]] = frozenset()
    #: Names in kubelet's answer that no device can have.
    strange: tuple[str, ...] = ()

    def count(self) -> int:
        """Return how many pods hold devices at least."""
        return max(len(set(self.held.values())), len(set(self.uids.values())))


class HolderMemory:
    """Finds the holders, and does not forget them while kubelet learns of its pods."""

    def __init__(self, uid_of: Callable[[str, str], PodUid | None]) -> None:
        """`uid_of` finds a pod's UID by namespace and name."""
        self._uid_of = uid_of
        self._last: Mapping[DeviceId, PodUid] = {}
        self._learning_until = -inf

    def kubelet_started(self, *, now: float) -> None:
        """Note that another kubelet answers since `now` (monotonic seconds)."""
        self._learning_until = now + LEARNING

    def holders(
        self, resources: Resources | None, checkpoint: Checkpoint | None, *, now: float
    ) -> Holders:
        """Return the holders; without kubelet's answer, those that it wrote down."""
        recorded = _recorded(checkpoint)
        held = recorded if resources is None else _listed(resources)
        strange = sorted(repr(d)[:64] for d in held if not is_holder_id(device_of(d)))
        uids: dict[DeviceId, PodUid] = {}
        for device, holder in held.items():
            uid = self._uid(device, holder, recorded)
            if uid and is_holder_id(device_of(device)):
                uids[device_of(device)] = uid
        if now < self._learning_until:
            written = {(device_of(device), uid) for device, uid in recorded.items()}
            uids = {d: uid for d, uid in self._last.items() if (d, uid) in written} | uids
        self._last = uids
        given = _given(resources) if resources is not None else frozenset()
        return Holders(held=held, uids=uids, given=given, strange=tuple(strange[:_SHOWN]))

    def _uid(
        self, device: DeviceId, holder: Holder | PodUid, recorded: Mapping[DeviceId, PodUid]
    ) -> PodUid | None:
        if not isinstance(holder, Holder):
            return holder
        return recorded.get(device) or self._uid_of(holder.namespace, holder.pod)


def _listed(resources: Resources) -> Mapping[DeviceId, Holder | PodUid]:
    return {
        device: Holder(namespace=holder.namespace, pod=holder.pod, container="")
        for name, devices in resources.held.items()
        if is_served_resource(name)
        for device, holder in devices.items()
    }


def _given(resources: Resources) -> frozenset[tuple[DeviceId, Holder]]:
    return frozenset(
        (device_of(device), holder)
        for name, devices in resources.held.items()
        if is_served_resource(name)
        for device, holder in devices.items()
        if is_holder_id(device_of(device))
    )


def _recorded(checkpoint: Checkpoint | None) -> dict[DeviceId, PodUid]:
    if checkpoint is None:
        return {}
    return {
        device: uid
        for name, devices in checkpoint.held.items()
        if is_served_resource(name)
        for device, uid in devices.items()
    }
