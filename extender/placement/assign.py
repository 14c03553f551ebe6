"""Which devices of a node a pod gets. The scheduler chose the node; here the last word is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from extender.placement.distribute import Containers, agrees, distribute
from extender.placement.fit import ask_of, fits
from extender.placement.reasons import Rejection
from extender.placement.state import NodeState
from gpus.demand import Demand
from gpus.model import GPU_RESOURCE, DeviceId, Gpu, NodeInventory, ResourceName
from gpus.topology import best_set

Free = Sequence[tuple[Gpu, DeviceId, ResourceName]]


def assign(
    demand: Demand, state: NodeState, *, listed: bool, wish: Containers | None = None
) -> Containers | Rejection:
    """Return the devices of each container, or every reason why there are none.

    On the plugin path kubelet chooses the devices, and the answer names no container. `wish` is an
    assignment made earlier: it is kept when it still can be. Other pods' holds count here too;
    pass a state without them where they should not.
    """
    fit = fits(ask_of(demand, listed=listed), state)
    if isinstance(fit, Rejection):
        return fit
    inventory = state.facts.inventory if state.facts is not None else None
    if inventory is None:
        return {}
    free = state.free_devices()
    resource_of = {device: resource for _, device, resource in free}
    if wish is not None and agrees(wish, demand, resource_of=resource_of):
        return wish
    pools = {
        name: _pick(name, inventory, _candidates(free, name), count)
        for name, count in demand.totals.items()
    }
    return distribute(
        demand, pools, pick=lambda name, ids, count: _pick(name, inventory, ids, count)
    )


def _pick(
    resource: ResourceName, inventory: NodeInventory, devices: Sequence[DeviceId], count: int
) -> Sequence[DeviceId]:
    if resource == GPU_RESOURCE:
        return best_set(devices, size=count, inventory=inventory)
    return devices[:count]


def _candidates(free: Free, resource: ResourceName) -> list[DeviceId]:
    """Return the free devices of a resource; of MIG instances, those of fuller GPUs first."""
    rest = Counter(gpu.uuid for gpu, _, _ in free)
    found = [(gpu, device) for gpu, device, name in free if name == resource]
    found.sort(key=lambda pair: (rest[pair[0].uuid], pair[0].index))
    return [device for _, device in found]
