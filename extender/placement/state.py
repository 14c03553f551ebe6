"""One node as the ledger sees it: what it has, who holds what, and so what is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from extender.placement.facts import ClaimKey, Counts, NodeFacts, PodFacts
from extender.placement.reasons import Reason
from gpus.model import (
    GPU_RESOURCE,
    MIG_RESOURCE_PREFIX,
    SHARED_GPU_RESOURCE,
    Assignment,
    DeviceId,
    Gpu,
    Health,
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
    """A place kept for a pod between its filter and its bind; no promise, only good manners."""

    uid: PodUid
    node: NodeName
    totals: Counts
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What one node has and who holds it. Made by `state_of`; never built by hand.

    `free` counts what a new pod could get by resource, holds of others deducted; `blocked` tells
    why it is nothing at all. `held` are the devices that nobody else may get (annotation path).
    """

    facts: NodeFacts | None = None
    pods: Mapping[PodUid, PodFacts] = field(default_factory=dict)
    reserved: Mapping[PodUid, Reservation] = field(default_factory=dict)
    holds: Mapping[PodUid, Hold] = field(default_factory=dict)
    ended: tuple[PodUid, ...] = ()
    blocked: Reason | None = field(default=Reason.NODE_UNKNOWN, compare=False)
    free: Counts = field(default_factory=dict, compare=False)
    held: frozenset[DeviceId] = field(default=frozenset(), compare=False)

    @property
    def path(self) -> Path | None:
        """By which path the node serves; None while its agent is silent or unreadable."""
        return self.facts.path if self.facts is not None else None

    @property
    def vacant(self) -> bool:
        """Tell whether there is nothing to remember: the node is gone and so are its pods."""
        return self.facts is None and not (self.pods or self.reserved or self.holds)

    def free_devices(self) -> list[tuple[Gpu, DeviceId, ResourceName]]:
        """The devices that can be given out on the annotation path, holds not regarded."""
        if self.blocked is not None or self.facts is None or self.facts.inventory is None:
            return []
        return [
            (gpu, device, resource)
            for gpu, device, resource in self.facts.inventory.devices()
            # Whoever was given the whole card before it was cut into instances has those too.
            if gpu.health is Health.HEALTHY and not self.held & {device, gpu.uuid}
        ]

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
        return replace(
            self, facts=None, blocked=Reason.NODE_UNKNOWN, free={}, held=frozenset(), ended=()
        )


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
    if state.blocked is not None or facts is None:
        return state
    foreign = _foreign(state, facts)
    if facts.path is Path.ANNOTATION:
        state = replace(state, held=_held(state, foreign))
        free = Counter(resource for _, _, resource in state.free_devices())
    else:
        free = Counter(facts.healthy)
        for pod in pods.values():
            free.subtract(pod.demand.totals if pod.demand is not None else {})
        for reservation in reserved.values():
            free.subtract(reservation.totals)
        for device in foreign:
            free.subtract(dict.fromkeys(_resources_of(device, facts), 1))
    for hold in holds.values():
        free.subtract(hold.totals)
    return replace(state, free={name: count for name, count in free.items() if count > 0})


def _blocked(facts: NodeFacts | None, pods: Iterable[PodFacts]) -> Reason | None:
    if facts is None:
        return Reason.NODE_UNKNOWN
    if facts.blocked is not None:
        return facts.blocked
    if facts.path is Path.ANNOTATION:
        unknown = not all(pod.covered for pod in pods)
    else:
        unknown = any(pod.fault for pod in pods)
    return Reason.HOLDER_UNKNOWN if unknown else None


def _foreign(state: NodeState, facts: NodeFacts) -> list[DeviceId]:
    """Devices that kubelet gave to pods that we have not been told of: older than the install."""
    return [
        device
        for device, uid in facts.in_use.items()
        if uid not in state.pods and uid not in state.reserved and uid not in state.ended
    ]


def _held(state: NodeState, foreign: Iterable[DeviceId]) -> frozenset[DeviceId]:
    assignments = [pod.assignment for pod in state.pods.values() if pod.assignment is not None]
    assignments += [reservation.assignment for reservation in state.reserved.values()]
    return frozenset(foreign).union(*(assignment.devices() for assignment in assignments))


def _resources_of(device: DeviceId, facts: NodeFacts) -> list[ResourceName]:
    """Every resource that a device may count as: its name tells a card from an instance, no more.

    Counting it under all of them keeps the sum on the safe side.
    """
    if device.startswith("MIG-"):
        return [name for name in facts.healthy if name.startswith(MIG_RESOURCE_PREFIX)]
    return [GPU_RESOURCE, SHARED_GPU_RESOURCE]
