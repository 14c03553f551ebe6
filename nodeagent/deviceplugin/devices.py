"""The devices that a plugin offers to kubelet, made from an inventory. Pure.

MIG strategies and time-slicing mean what they mean in NVIDIA's plugin (its README, internal/rm):
`none` offers every GPU whole, `single` offers equal MIG instances as `nvidia.com/gpu`, `mixed`
offers instances under the names of their profiles. A sliced device is listed once for each replica,
as `<uuid>::<n>`; replicas divide time only, neither memory nor faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from gpus.model import GPU_RESOURCE, DeviceId, Gpu, Health, NodeInventory, ResourceName

_REPLICA = "::"


class MigStrategy(StrEnum):
    """Under which names MIG instances are offered."""

    NONE = "none"
    SINGLE = "single"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slicing:
    """Time-slicing of one resource: `replicas` (2 at least) of each of its devices.

    `shown_as` is the resource name that pods ask for, `one_at_a_time` refuses a container that asks
    for more than one: it would get no larger share of time (failRequestsGreaterThanOne).
    """

    replicas: int
    shown_as: ResourceName
    one_at_a_time: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """How the devices of a node are offered; `packed` fills shared GPUs up instead of spreading."""

    mig: MigStrategy = MigStrategy.MIXED
    slicing: Mapping[ResourceName, Slicing] = field(default_factory=dict)
    packed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One entry of the list that kubelet is sent."""

    id: DeviceId
    healthy: bool
    numa_node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one plugin serves: its devices, and the inventory that they are part of."""

    resource: ResourceName
    devices: tuple[Device, ...]
    inventory: NodeInventory
    one_at_a_time: bool = False
    packed: bool = False


class NothingToOffer(ValueError):
    """The GPUs are not as the MIG strategy needs them; the text says what to change."""


def offers(inventory: NodeInventory, offering: Offering) -> dict[ResourceName, Offer]:
    """Split an inventory by resource name; unhealthy GPUs are listed as such, not left out.

    Raises `NothingToOffer`.
    """
    found: dict[ResourceName, Offer] = {}
    for name, devices in _devices(inventory, offering.mig).items():
        slicing = offering.slicing.get(name)
        shown_as = slicing.shown_as if slicing is not None else name
        replicas = [d for device in devices for d in _replicas(device, slicing)]
        found[shown_as] = Offer(
            resource=shown_as,
            devices=tuple(replicas),
            inventory=inventory,
            one_at_a_time=slicing is not None and slicing.one_at_a_time,
            packed=offering.packed,
        )
    return found


def withheld(offers: Mapping[ResourceName, Offer]) -> dict[ResourceName, Offer]:
    """Return the same devices, none of which kubelet may give out now; holders keep theirs."""
    return {
        name: replace(offer, devices=tuple(replace(d, healthy=False) for d in offer.devices))
        for name, offer in offers.items()
    }


def device_of(id: str) -> DeviceId:  # noqa: A002 - the protocol's word
    """Return the device that an entry of a list stands for: that of a replica is its GPU's."""
    return DeviceId(id.partition(_REPLICA)[0])


def is_replica(id: str) -> bool:  # noqa: A002 - the protocol's word
    """Tell whether an entry is one of several that share a device."""
    return _REPLICA in id


def _devices(inventory: NodeInventory, strategy: MigStrategy) -> dict[ResourceName, list[Device]]:
    devices: dict[ResourceName, list[Device]] = {}
    for gpu, device, resource in _named(inventory, strategy):
        healthy = gpu.health is Health.HEALTHY
        entry = Device(id=device, healthy=healthy, numa_node=gpu.numa_node)
        devices.setdefault(resource, []).append(entry)
    return devices


def _named(
    inventory: NodeInventory, strategy: MigStrategy
) -> Iterator[tuple[Gpu, DeviceId, ResourceName]]:
    match strategy:
        case MigStrategy.NONE:
            for gpu in inventory.gpus:
                yield gpu, gpu.uuid, GPU_RESOURCE
        case MigStrategy.SINGLE:
            _check_uniform(inventory)
            for gpu, device, _ in inventory.devices():
                yield gpu, device, GPU_RESOURCE
        case MigStrategy.MIXED:
            yield from inventory.devices()


def _check_uniform(inventory: NodeInventory) -> None:
    """Raise `NothingToOffer` unless one request means the same whichever device serves it."""
    split = [gpu for gpu in inventory.gpus if gpu.mig_enabled]
    if not split:
        return
    whole = [gpu.index for gpu in inventory.gpus if not gpu.mig_enabled]
    empty = [gpu.index for gpu in split if not gpu.mig]
    profiles = sorted({instance.profile for gpu in split for instance in gpu.mig})
    needs = "MIG strategy single needs all GPUs split into instances of one profile"
    if whole or empty:
        raise NothingToOffer(f"{needs}; GPUs {_list(whole + empty)} are not split")
    if len(profiles) > 1:
        raise NothingToOffer(f"{needs}; there are {', '.join(profiles)}")


def _list(indexes: list[int]) -> str:
    return ", ".join(map(str, sorted(indexes)))


def _replicas(device: Device, slicing: Slicing | None) -> Iterator[Device]:
    if slicing is None:
        yield device
        return
    for number in range(slicing.replicas):
        id_ = DeviceId(f"{device.id}{_REPLICA}{number}")
        yield Device(id=id_, healthy=device.healthy, numa_node=device.numa_node)
