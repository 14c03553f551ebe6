"""Which container of a pod gets which of the pod's devices.

KEP-753 decides who runs beside whom: a sidecar runs on from its start, a plain init container runs
alone but for the sidecars before it, app containers run together with all sidecars. So sidecars
and app containers get devices of their own; an init container may use any that no earlier sidecar
has, those of later containers included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gpus.demand import ContainerDemand, ContainerKind, Demand
from gpus.model import DeviceId, ResourceName

#: Chooses so many of these devices of one resource.
Pick = Callable[[ResourceName, Sequence[DeviceId], int], Sequence[DeviceId]]

Containers = Mapping[str, tuple[DeviceId, ...]]


def distribute(
    demand: Demand, pools: Mapping[ResourceName, Sequence[DeviceId]], *, pick: Pick
) -> Containers:
    """Return each asking container's devices; a pool holds `demand.totals` of its resource."""
    given: dict[str, list[DeviceId]] = {container.name: [] for container in demand.containers}
    for resource, pool in pools.items():
        for name, devices in _of_one(demand.containers, resource, pool, pick=pick).items():
            given[name] += devices
    return {name: tuple(devices) for name, devices in given.items()}


def agrees(
    containers: Containers, demand: Demand, *, resource_of: Mapping[DeviceId, ResourceName]
) -> bool:
    """Tell whether an assignment of earlier gives every container what it asks for, and once.

    `resource_of` names the devices that may be used; any other device is one too many.
    """
    if set(containers) != {container.name for container in demand.containers}:
        return False
    sidecars: set[DeviceId] = set()
    running: set[DeviceId] = set()
    for container in demand.containers:
        devices = containers[container.name]
        counts: dict[ResourceName | None, int] = {}
        for device in devices:
            counts[resource_of.get(device)] = counts.get(resource_of.get(device), 0) + 1
        beside = running if container.kind is ContainerKind.APP else sidecars
        if counts != dict(container.counts) or beside.intersection(devices):
            return False
        if container.kind is not ContainerKind.INIT:
            running.update(devices)
        if container.kind is ContainerKind.SIDECAR:
            sidecars.update(devices)
    return len(running.union(*containers.values())) <= sum(demand.totals.values())


def _of_one(
    containers: Sequence[ContainerDemand],
    resource: ResourceName,
    pool: Sequence[DeviceId],
    *,
    pick: Pick,
) -> dict[str, Sequence[DeviceId]]:
    asking = [container for container in containers if container.counts.get(resource)]
    lasting = [container for container in asking if container.kind is not ContainerKind.INIT]
    given: dict[str, Sequence[DeviceId]] = {}
    left = list(pool)
    # The largest first: it has most to gain from devices that are close to each other.
    for container in sorted(lasting, key=lambda c: -c.counts[resource]):
        given[container.name] = pick(resource, left, container.counts[resource])
        left = [device for device in left if device not in given[container.name]]
    taken: set[DeviceId] = set()
    for container in asking:
        if container.kind is ContainerKind.SIDECAR:
            taken.update(given[container.name])
        elif container.kind is ContainerKind.INIT:
            usable = [device for device in pool if device not in taken]
            given[container.name] = pick(resource, usable, container.counts[resource])
    return given
