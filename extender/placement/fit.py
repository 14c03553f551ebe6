"""Whether a node can take a pod now, and every reason why not; which devices it gets: `assign`.

| what is asked of resource r          | annotation path          | plugin path                |
|--------------------------------------|--------------------------|----------------------------|
| none here, but other GPU resources   | no GPU of the asked kind                              |
| a product, or another wish           | some device meets it     | every healthy device does  |
| more than there are                  | that meet the wishes     | kubelet's capacity         |
| more than are healthy                | that meet the wishes     | kubelet's allocatable      |
| more than are free                   | and nobody has or shares | not counted for any pod    |
| a topology                           | so many free ones have it| all healthy ones have it   |
| a share of a GPU: `shares`           | memory that is left      | no GPU of the asked kind   |

On the plugin path kubelet chooses, so a wish is met only if whatever it may choose meets it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from extender.placement.devices import Devices
from extender.placement.facts import NodeFacts
from extender.placement.layout import Layout, Mask
from extender.placement.picks import can_connect, is_connected
from extender.placement.reasons import Reason, Rejection
from extender.placement.shares import Share, choose_share
from extender.placement.state import NodeState
from gpus.demand import Demand
from gpus.model import GPU_MEMORY_RESOURCE, GPU_RESOURCE, SHARED_GPU_RESOURCE, Path, ResourceName
from gpus.wishes import Topology, Wishes


@dataclass(frozen=True, slots=True)
class Ask:
    """All that decides whether a pod fits a node; equal asks get equal verdicts.

    `listed` tells whether the pod's containers read their devices from a ConfigMap: the webhook
    sees to that, and only then can the annotation path hand devices to them.
    """

    totals: tuple[tuple[ResourceName, int], ...]
    listed: bool
    wishes: Wishes
    #: The same for all nodes, so that it is worked out once: the wishes without UUIDs.
    but_for_uuids: Wishes = field(compare=False)

    @property
    def simple(self) -> bool:
        """Tell whether counting is all that it takes."""
        return not self.wishes.narrows and self.wishes.topology is None

    def likeness(self, state: NodeState) -> Hashable:
        """Return what equals for nodes on which the verdict is the same; None: look closely."""
        likeness, wishes = state.likeness, self.wishes
        if likeness is None or not (wishes.uuids or wishes.excluded):
            return likeness
        devices = state.facts.devices if state.facts is not None else None
        if devices is None:
            return likeness
        return likeness, devices.named(wishes.uuids), devices.named(wishes.excluded)


@dataclass(frozen=True, slots=True)
class Fit:
    """A node can take the pod: `left` devices of the asked kinds stay free.

    `vacant` tells that nobody holds any of them yet, `level` how capable the best GPU is that the
    pod would get, `breaks` that it would leave a part of a whole NVLink island. Of a share, `left`
    is what stays free of that GPU's memory in MiB, and `starts` tells that nobody uses it yet.
    """

    left: int
    vacant: bool
    level: int = 0
    breaks: bool = False
    starts: bool = False


def ask_of(demand: Demand, *, listed: bool) -> Ask:
    """Return what a demand comes down to when nodes are filtered."""
    wishes = demand.wishes
    plain = Wishes(
        products=wishes.products, min_memory=wishes.min_memory, min_compute=wishes.min_compute
    )
    return Ask(tuple(sorted(demand.totals.items())), listed, wishes, plain)


def fits(ask: Ask, state: NodeState) -> Fit | Rejection:
    """Tell whether the node has what is asked, free, now."""
    facts = state.facts
    if facts is None or (state.blocked is not None and state.blocked is not Reason.HOLDER_UNKNOWN):
        return Rejection((state.blocked or Reason.NO_INVENTORY,))
    reasons = tuple(_lacks(ask, state, facts))
    if state.blocked is not None:
        # Free or not cannot be said; a misfit that is permanent can.
        return Rejection((state.blocked, *(reason for reason in reasons if reason.permanent)))
    return Rejection(reasons) if reasons else _fit(ask, state, facts)


def open_to(ask: Ask, name: ResourceName, state: NodeState, devices: Devices) -> Mask:
    """Return the devices of a resource that the pod may get now, on the annotation path."""
    mask = devices.layout.masks.get(name, 0) & state.open
    if ask.wishes.narrows:
        mask &= devices.admitted(ask.wishes, but_for_uuids=ask.but_for_uuids)[1]
    return mask


def _lacks(ask: Ask, state: NodeState, facts: NodeFacts) -> Iterator[Reason]:
    for name, count in ask.totals:
        if name == GPU_MEMORY_RESOURCE:
            lack = _no_share(ask, count, state, facts)
        elif ask.simple or not facts.total.get(name):
            lack = _lack(name, count, state, facts)
        else:
            lack = _lack_of_wished(ask, name, count, state=state, facts=facts)
        if lack is not None:
            yield lack
    if facts.path is Path.ANNOTATION and not ask.listed:
        yield Reason.POD_UNUSABLE


def _lack(name: ResourceName, count: int, state: NodeState, facts: NodeFacts) -> Reason | None:
    total, free = facts.total.get(name, 0), state.free.get(name, 0)
    if free >= count:
        return None
    if not total:
        return Reason.OTHER_KIND if any(facts.total.values()) else Reason.NO_GPU
    return _short(count, total=total, healthy=facts.healthy.get(name, 0), free=free)


def _short(count: int, *, total: int, healthy: int, free: int) -> Reason:
    if count > total:
        return Reason.TOO_FEW
    if count > healthy:
        return Reason.UNHEALTHY
    return Reason.NOT_ENOUGH if free else Reason.IN_USE


def _lack_of_wished(
    ask: Ask, name: ResourceName, count: int, *, state: NodeState, facts: NodeFacts
) -> Reason | None:
    if facts.devices is None:
        return Reason.NO_INVENTORY
    if facts.path is Path.ANNOTATION:
        return _lack_by_device(ask, name, count, state=state, devices=facts.devices)
    lack = _left_to_kubelet(ask, name, count, devices=facts.devices)
    return lack or _lack(name, count, state, facts)


def _lack_by_device(
    ask: Ask, name: ResourceName, count: int, *, state: NodeState, devices: Devices
) -> Reason | None:
    layout, topology = devices.layout, _topology(ask, name)
    product, meets = devices.admitted(ask.wishes, but_for_uuids=ask.but_for_uuids)
    mask = layout.masks[name]
    if not mask & product:
        return Reason.OTHER_PRODUCT
    mask &= meets
    if not mask:
        return Reason.OTHER_KIND
    well, free = mask & layout.healthy, mask & state.open
    if count <= well.bit_count() and not can_connect(layout, well, count, topology):
        return Reason.NEVER_CONNECTED
    if count > free.bit_count():
        return _short(
            count, total=mask.bit_count(), healthy=well.bit_count(), free=free.bit_count()
        )
    return None if can_connect(layout, free, count, topology) else Reason.NOT_CONNECTED


def _left_to_kubelet(
    ask: Ask, name: ResourceName, count: int, *, devices: Devices
) -> Reason | None:
    """Tell why kubelet might choose what the pod does not wish."""
    layout = devices.layout
    whole = GPU_RESOURCE if name == SHARED_GPU_RESOURCE else name
    well = layout.masks.get(whole, 0) & layout.healthy
    product, meets = devices.admitted(ask.wishes, but_for_uuids=ask.but_for_uuids)
    if well & ~product:
        return Reason.OTHER_PRODUCT
    # Where NVIDIA's plugin shows instances as nvidia.com/gpu, nothing is known of them.
    if ask.wishes.narrows and (not well or well & ~meets):
        return Reason.OTHER_KIND
    topology = _topology(ask, name)
    if count > 1 and not is_connected(layout, well, topology):
        return Reason.NEVER_CONNECTED
    return None


def _topology(ask: Ask, name: ResourceName) -> Topology | None:
    return ask.wishes.topology if name == GPU_RESOURCE else None


def _no_share(ask: Ask, size: int, state: NodeState, facts: NodeFacts) -> Reason | None:
    if not any(facts.total.values()):
        return Reason.NO_GPU
    if facts.path is not Path.ANNOTATION or facts.devices is None:
        return Reason.OTHER_KIND
    share = share_for(ask, size, state, facts.devices)
    return share if isinstance(share, Reason) else None


def share_for(ask: Ask, size: int, state: NodeState, devices: Devices) -> Share | Reason:
    """Choose the GPU for a share of `size` bytes, or tell why there is none."""
    admitted = devices.admitted(ask.wishes, but_for_uuids=ask.but_for_uuids)
    return choose_share(size, state, devices.layout, admitted=admitted)


def _fit(ask: Ask, state: NodeState, facts: NodeFacts) -> Fit | Rejection:
    devices = facts.devices
    left = able = gpus = 0
    for name, count in ask.totals:
        if name == GPU_MEMORY_RESOURCE and devices is not None:
            return _fit_of_share(share_for(ask, count, state, devices), state, devices.layout)
        left += state.free.get(name, 0) - count
        able += facts.healthy.get(name, 0) - count
        gpus += count if name == GPU_RESOURCE else 0
    vacant = left == able
    if devices is None:
        return Fit(left, vacant)
    if facts.path is Path.PLUGIN:
        return Fit(left, vacant, devices.layout.top)
    outlook = devices.layout.outlook(open_to(ask, GPU_RESOURCE, state, devices), gpus)
    return Fit(left, vacant, outlook.level, outlook.breaks)


def _fit_of_share(share: Share | Reason, state: NodeState, layout: Layout) -> Fit | Rejection:
    if isinstance(share, Reason):
        return Rejection((share,))
    vacant = not layout.healthy & ~state.open
    breaks = share.starts and layout.is_whole_island_of(share.place, free=state.open)
    level = layout.levels[share.place]
    return Fit(share.left >> 20, vacant, level, breaks, share.starts)
