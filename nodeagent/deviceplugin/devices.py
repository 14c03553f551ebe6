"""The devices that a plugin offers to kubelet, made from an inventory. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gpus.model import DeviceId, Health, NodeInventory, ResourceName


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One entry of the list that kubelet is sent."""

    id: DeviceId
    healthy: bool
    numa_node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a plugin serves: its devices, and the inventory that they are part of."""

    resource: ResourceName
    devices: tuple[Device, ...]
    inventory: NodeInventory


def offers(inventory: NodeInventory) -> dict[ResourceName, Offer]:
    """Split an inventory by resource name; unhealthy GPUs are listed as such, not left out."""
    devices: dict[ResourceName, list[Device]] = {}
    for gpu, device, resource in inventory.devices():
        healthy = gpu.health is Health.HEALTHY
        entry = Device(id=device, healthy=healthy, numa_node=gpu.numa_node)
        devices.setdefault(resource, []).append(entry)
    return {
        resource: Offer(resource=resource, devices=tuple(listed), inventory=inventory)
        for resource, listed in devices.items()
    }
