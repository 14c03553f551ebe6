"""One node as the ledger sees it: what it has, who holds what, and so what is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from extender.placement.devices import Devices
from extender.placement.distribute import Containers
from extender.placement.facts import ClaimKey, NodeFacts, PodFacts
from extender.placement.layout import Counts, Mask, bits
from extender.placement.reasons import Reason
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    GPU_RESOURCE,
    MIG_RESOURCE_PREFIX,
    SHARED_GPU_RESOURCE,
    Assignment,
    DeviceId,
    NodeName,
    Path,
    PodUid,
    ResourceName,
)

#: How many ended pods a node remembers. The agent's `in-use` lags behind by seconds; a pod pushed
#: out of this memory meanwhile makes its device count as held a little longer, never as free.
MEMORY_OF_ENDED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Devices that a bind of ours gave to a pod, until the watch shows the pod bound or gone.

    `since` is in seconds of a monotonic clock. `sent` tells that a Binding was sent and not refused
    for certain: it took effect, or still may. Then nobody else may get these devices, whatever
    becomes of later attempts, nor may the pod be given others here.
    """

    uid: PodUid
    namespace: str
    name: str
    node: NodeName
    totals: Counts
    assignment: Assignment
    since: float
    #: The ConfigMap that the pod's containers read, which is made where the assignment names any.
    claim: ClaimKey | None = None
    sent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A place kept for a pod between its filter and its bind; no promise, only good manners.

    `containers` names the devices that were chosen, and none where kubelet chooses.
    """

    uid: PodUid
    node: NodeName
    totals: Counts
    expires: float
    containers: Containers = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What one node has and who holds it. Made by `state_of`; never built by hand.

    `free` counts what a new pod could get by resource, holds of others deducted; `blocked` tells
    why it is nothing at all. On the annotation path `open` are the healthy devices that nobody has
    anything of, and `shares` the bytes that are given away of each GPU that is held in shares only.
    """

    facts: NodeFacts | None = None
    pods: Mapping[PodUid, PodFacts] = field(default_factory=dict)
    reserved: Mapping[PodUid, Reservation] = field(default_factory=dict)
    holds: Mapping[PodUid, Hold] = field(default_factory=dict)
    ended: tuple[PodUid, ...] = ()
    blocked: Reason | None = field(default=Reason.NO_INVENTORY, compare=False)
    free: Counts = field(default_factory=dict, compare=False)
    open: Mask = field(default=0, compare=False)
    shares: Mapping[int, int] = field(default_factory=dict, compare=False)

    @property
    def path(self) -> Path | None:
        """By which path the node serves; None while its agent is silent or unreadable."""
        return self.facts.path if self.facts is not None else None

    @property
    def vacant(self) -> bool:
        """Tell whether there is nothing to remember: the node is gone and so are its pods."""
        return self.facts is None and not (self.pods or self.reserved or self.holds)

    @property
    def likeness(self) -> Hashable:
        """Nodes with equal likeness have the same to give, but for the names of devices."""
        facts = self.facts
        if facts is None or self.blocked is not None:
            return None
        layout = facts.devices.layout if facts.devices is not None else None
        if facts.path is Path.ANNOTATION:
            return layout, self.open, tuple(self.shares.items())
        counts = (self.free, facts.healthy, facts.total)
        return layout, *(tuple(part.items()) for part in counts)

    def unclear(self) -> list[PodFacts]:
        """Return the pods that make the node's GPUs unknown."""
        if self.blocked is not Reason.HOLDER_UNKNOWN or self.facts is None:
            return []
        return [pod for pod in self.pods.values() if _is_unclear(pod, self.facts)]

    def without(self, uid: PodUid) -> NodeState:
        """Return the node as that pod should see it: its own hold and reservation are free."""
        if uid not in self.reserved and uid not in self.holds:
            return self
        return self.having(
            reserved={k: v for k, v in self.reserved.items() if k != uid},
            holds={k: v for k, v in self.holds.items() if k != uid},
        )

    def having(
        self,
        *,
        facts: NodeFacts | None = None,
        pods: Mapping[PodUid, PodFacts] | None = None,
        reserved: Mapping[PodUid, Reservation] | None = None,
        holds: Mapping[PodUid, Hold] | None = None,
        ended: tuple[PodUid, ...] | None = None,
    ) -> NodeState:
        """Return the node with other holders or facts; None leaves a part as it is."""
        return state_of(
            facts=self.facts if facts is None else facts,
            pods=self.pods if pods is None else pods,
            reserved=self.reserved if reserved is None else reserved,
            holds=self.holds if holds is None else holds,
            ended=self.ended if ended is None else ended,
        )

    def gone(self) -> NodeState:
        """Return the node without its Node object; pods may outlive that for a while."""
        return NodeState(pods=self.pods, reserved=self.reserved, holds=self.holds)


def state_of(
    *,
    facts: NodeFacts | None,
    pods: Mapping[PodUid, PodFacts],
    reserved: Mapping[PodUid, Reservation],
    holds: Mapping[PodUid, Hold],
    ended: tuple[PodUid, ...] = (),
) -> NodeState:
    """Count what is free on a node."""
    state = NodeState(
        facts=facts,
        pods=pods,
        reserved=reserved,
        holds=holds,
        ended=ended,
        blocked=_blocked(facts, pods.values()),
    )
    if facts is None or state.blocked is not None:
        return state
    if facts.path is Path.ANNOTATION and facts.devices is not None:
        return _by_device(state, facts, facts.devices)
    return replace(state, free=_by_count(state, facts))


def _by_device(state: NodeState, facts: NodeFacts, devices: Devices) -> NodeState:
    """Count what no assignment names."""
    layout = devices.layout
    taken = devices.mask(_foreign(state, facts))
    shares: dict[int, int] = {}
    for containers, share in _given(state):
        mask = devices.mask(_all(containers))
        if share and not mask & ~layout.whole:
            for place in bits(mask):
                shares[place] = shares.get(place, 0) + share
        else:
            taken |= mask
    if shares:
        # Beside somebody who has the whole GPU a share counts for nothing.
        shares = {p: share for p, share in sorted(shares.items()) if not taken >> p & 1}
        taken |= sum(1 << place for place in shares)
    free = layout.healthy & ~taken
    counts = {name: (mask & free).bit_count() for name, mask in layout.masks.items()}
    return replace(
        state,
        open=free,
        shares=shares,
        free={name: count for name, count in counts.items() if count},
    )


def _given(state: NodeState) -> Iterable[tuple[Containers, int]]:
    """Yield what every pod has or may get of the devices, with its share of each in bytes."""
    for pod in state.pods.values():
        if pod.assignment is not None:
            yield pod.assignment.containers, pod.assignment.share_bytes
    for reservation in state.reserved.values():
        yield reservation.assignment.containers, reservation.assignment.share_bytes
    for hold in state.holds.values():
        yield hold.containers, hold.totals.get(GPU_MEMORY_RESOURCE, 0)


def _by_count(state: NodeState, facts: NodeFacts) -> Counts:
    """Count what kubelet advertises and no pod asked for."""
    free = Counter(facts.healthy)
    for pod in state.pods.values():
        free.subtract(pod.demand.totals if pod.demand is not None else {})
    for reservation in state.reserved.values():
        free.subtract(reservation.totals)
    for hold in state.holds.values():
        free.subtract(hold.totals)
    # A GPU of which a pod has a share, from when the node was on the other path, is not free.
    shared = {d for containers, share in _given(state) if share for d in _all(containers)}
    for device in (*_foreign(state, facts), *shared):
        free.subtract(dict.fromkeys(_resources_of(device, facts), 1))
    return {name: count for name, count in free.items() if count > 0}


def _all(containers: Containers) -> Iterable[DeviceId]:
    return (device for ids in containers.values() for device in ids)


def _blocked(facts: NodeFacts | None, pods: Iterable[PodFacts]) -> Reason | None:
    if facts is None:
        return Reason.NO_INVENTORY
    if facts.blocked is not None:
        return facts.blocked
    return Reason.HOLDER_UNKNOWN if any(_is_unclear(pod, facts) for pod in pods) else None


def _is_unclear(pod: PodFacts, facts: NodeFacts) -> bool:
    """Where kubelet chooses, only the count matters."""
    return bool(pod.unclear if facts.path is Path.ANNOTATION else pod.fault)


def _foreign(state: NodeState, facts: NodeFacts) -> list[DeviceId]:
    """Devices that kubelet gave to pods that we have not been told of: older than the install."""
    return [
        device
        for device, uid in facts.in_use.items()
        if uid not in state.pods and uid not in state.reserved and uid not in state.ended
    ]


def _resources_of(device: DeviceId, facts: NodeFacts) -> list[ResourceName]:
    """Every resource that a device may count as: its name tells a card from an instance, no more.

    Counting it under all of them keeps the sum on the safe side.
    """
    if device.startswith("MIG-"):
        return [name for name in facts.healthy if name.startswith(MIG_RESOURCE_PREFIX)]
    return [GPU_RESOURCE, SHARED_GPU_RESOURCE]
