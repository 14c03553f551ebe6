"""Which devices of a node a pod gets. The scheduler chose the node; here the last word is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extender.placement.devices import Devices
from extender.placement.distribute import Containers, agrees, distribute
from extender.placement.fit import Ask, ask_of, fits, open_to, share_for
from extender.placement.layout import Mask, bits
from extender.placement.picks import is_connected, pick
from extender.placement.reasons import Reason, Rejection
from extender.placement.shares import room
from extender.placement.state import NodeState
from gpus.demand import Demand
from gpus.model import GPU_MEMORY_RESOURCE, GPU_RESOURCE, DeviceId, Path, ResourceName


def assign(
    demand: Demand, state: NodeState, *, listed: bool, earlier: Containers | None = None
) -> Containers | Rejection:
    """Return the devices of each container, or every reason why there are none.

    On the plugin path kubelet chooses the devices, and the answer names no container. `earlier` is
    an assignment made before: it is kept when it still can be. Other pods' holds count here too;
    pass a state without them where they should not.
    """
    ask = ask_of(demand, listed=listed)
    fit = fits(ask, state)
    if isinstance(fit, Rejection):
        return fit
    facts = state.facts
    if facts is None or facts.devices is None or facts.path is not Path.ANNOTATION:
        return {}
    devices = facts.devices
    if GPU_MEMORY_RESOURCE in demand.totals:
        return _share(demand, ask, state, devices, earlier=earlier)
    free = {name: open_to(ask, name, state, devices) for name in demand.totals}
    if earlier is not None and _still_right(earlier, demand, free, devices):
        return earlier
    pools: dict[ResourceName, Sequence[DeviceId]] = {}
    for name, count in demand.totals.items():
        chosen = _pool(ask, name, free[name], count=count, state=state, devices=devices)
        if chosen is None:
            return Rejection((Reason.NOT_CONNECTED,))
        pools[name] = chosen
    return distribute(demand, pools, pick=lambda *question: _some(devices, *question))


def _share(
    demand: Demand, ask: Ask, state: NodeState, devices: Devices, *, earlier: Containers | None
) -> Containers | Rejection:
    size, layout = demand.totals[GPU_MEMORY_RESOURCE], devices.layout
    admitted = devices.admitted(ask.wishes, but_for_uuids=ask.but_for_uuids)
    names = [container.name for container in demand.containers]
    if earlier is not None and earlier.keys() == set(names):
        place = _one(devices.mask(device for ids in earlier.values() for device in ids))
        roomy = room(state, layout, layout.whole & admitted[1])
        given = all(len(ids) == 1 for ids in earlier.values())
        if given and place is not None and roomy.get(place, 0) >= size:
            return earlier
    share = share_for(ask, size, state, devices)
    if isinstance(share, Reason):
        return Rejection((share,))
    return dict.fromkeys(names, (devices.ids[share.place],))


def _one(mask: Mask) -> int | None:
    return mask.bit_length() - 1 if mask.bit_count() == 1 else None


def _still_right(
    earlier: Containers, demand: Demand, free: Mapping[ResourceName, Mask], devices: Devices
) -> bool:
    usable = {device: name for name, mask in free.items() for device in devices.names(mask)}
    if not agrees(earlier, demand, resource_of=usable):
        return False
    gpus = devices.mask(device for ids in earlier.values() for device in ids)
    return is_connected(devices.layout, gpus, demand.wishes.topology)


def _pool(
    ask: Ask,
    resource: ResourceName,
    free: Mask,
    *,
    count: int,
    state: NodeState,
    devices: Devices,
) -> Sequence[DeviceId] | None:
    layout = devices.layout
    if resource == GPU_RESOURCE:
        chosen = pick(layout, free, count, ask.wishes.topology)
        return devices.names(chosen) if chosen is not None else None
    # Of MIG instances, those of fuller cards first.
    cards = {place: layout.slots[place].card for place in bits(free)}
    rest = {card: (layout.instances[card] & state.open).bit_count() for card in cards.values()}
    order = sorted(cards, key=lambda place: (rest[cards[place]], cards[place], place))
    return [devices.ids[place] for place in order[:count]]


def _some(
    devices: Devices, resource: ResourceName, among: Sequence[DeviceId], count: int
) -> Sequence[DeviceId]:
    if resource != GPU_RESOURCE or len(among) == count:
        return among[:count]
    return devices.names(pick(devices.layout, devices.mask(among), count) or 0)
