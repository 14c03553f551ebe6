"""GPU feature discovery's labels where GPUs are shared, or split in another way than `mixed`. Pure.

As k8s-device-plugin internal/lm (resource.go, mig-strategy.go) says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gpus.model import GPU_RESOURCE, NodeInventory, ResourceName
from nodeagent.deviceplugin.devices import MigStrategy, NothingToOffer, Offering, Slicing, offers
from nodeagent.labels import PREFIX, sanitise

_GPU = str(GPU_RESOURCE)
_STRATEGY = PREFIX + "mig.strategy"
_OF_INSTANCES = PREFIX + "mig-"
_MIB = 1 << 20


def as_offered(
    labels: Mapping[str, str], inventory: NodeInventory, offering: Offering
) -> dict[str, str]:
    """Return the labels of a node whose MIG instances are labelled as for `mixed`, made true."""
    changed = dict(labels)
    if offering.mig is not MigStrategy.MIXED and _STRATEGY in labels:
        changed = {n: v for n, v in labels.items() if not n.startswith((_OF_INSTANCES, _STRATEGY))}
        if offering.mig is MigStrategy.SINGLE:
            changed |= _of_single(labels, inventory)
    for resource, slicing in offering.slicing.items():
        changed |= _of_slicing(changed, resource, slicing)
    return changed


def _of_single(labels: Mapping[str, str], inventory: NodeInventory) -> dict[str, str]:
    product = labels.get(f"{_GPU}.product", "")
    changed = {_STRATEGY: str(MigStrategy.SINGLE)}
    try:
        offers(inventory, Offering(mig=MigStrategy.SINGLE))
    except NothingToOffer:
        return changed | {
            f"{_GPU}.product": sanitise(f"{product}-MIG-INVALID"),
            f"{_GPU}.count": "0",
            f"{_GPU}.memory": "0",
        }
    instances = [instance for gpu in inventory.gpus for instance in gpu.mig]
    changed[f"{_GPU}.count"] = str(len(instances))
    changed[f"{_GPU}.product"] = sanitise(f"{product}-MIG-{instances[0].profile}")
    if (memory := instances[0].memory_bytes) is not None:
        changed[f"{_GPU}.memory"] = str(memory // _MIB)
    return changed


def _of_slicing(
    labels: Mapping[str, str], resource: ResourceName, slicing: Slicing
) -> Iterator[tuple[str, str]]:
    if f"{resource}.count" not in labels:
        return
    yield f"{resource}.replicas", str(slicing.replicas)
    yield f"{resource}.sharing-strategy", "time-slicing"
    product = labels.get(f"{resource}.product")
    if product is not None and slicing.shown_as == resource:
        yield f"{resource}.product", sanitise(f"{product[: 63 - len('-SHARED')]}-SHARED")
