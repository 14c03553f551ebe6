"""Everything that is known of the GPUs of one node, for who asks for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from extender.page.nodes import NodeView
from extender.page.notes import Fault, Note, shortened
from extender.placement.devices import Devices
from extender.placement.layout import Slot
from gpus.model import Gpu

_WELL = Fault(reason="", since=None)


class Bond(Struct, frozen=True, omit_defaults=True):
    """How a GPU reaches others of the node: NVLinks, or the closest common PCIe ancestor."""

    peers: Sequence[int]
    nvlinks: int = 0
    pcie: str = ""


class Device(Struct, frozen=True, omit_defaults=True):
    """A device beyond its cell; memory in bytes, `since` in RFC 3339."""

    id: str = ""
    product: str = ""
    memory: int = 0
    compute: str = ""
    architecture: str = ""
    numa: int | None = None
    bus: str = ""
    health: str = ""
    reason: str = ""
    since: str = ""
    bonds: Sequence[Bond] = ()


class NodeDetails(Struct, frozen=True, omit_defaults=True):
    """A node beyond its view; `devices` stand in the order of the view's cells."""

    view: NodeView
    driver: str = ""
    cuda: str = ""
    source: str = ""
    trouble: str = ""
    path_reason: str = ""
    devices: Sequence[Device] = ()


def details_of(view: NodeView, note: Note) -> NodeDetails:
    """Return all that is known of a node."""
    devices: list[Device] = []
    if note.devices is not None:
        slots = zip(note.devices.ids, note.devices.layout.slots, strict=True)
        devices += [_device(name, slot, note.devices, note) for name, slot in slots]
    devices += [
        Device(
            id=one.uuid or "",
            product=shortened(one.product or ""),
            bus=shortened(one.bdf or ""),
            health="withheld",
            reason=shortened(one.reason),
        )
        for one in note.withheld
    ]
    return NodeDetails(
        view=view,
        driver=note.driver,
        cuda=note.cuda,
        source=note.source,
        trouble=note.trouble,
        path_reason=note.path_reason,
        devices=devices,
    )


def _device(name: str, slot: Slot, devices: Devices, note: Note) -> Device:
    card = devices.layout.cards[slot.card]
    fault = note.faults.get(devices.cards[slot.card], _WELL)
    return Device(
        id=name,
        product=shortened(card.product or ""),
        memory=slot.memory or 0,
        compute="{}.{}".format(*card.compute_capability) if card.compute_capability else "",
        architecture=shortened(card.architecture or ""),
        numa=card.numa_node,
        bus=note.buses[slot.card],
        health=card.health.value,
        reason=fault.reason,
        since=fault.since.isoformat() if fault.since is not None else "",
        bonds=_bonds(card, devices.layout.cards),
    )


def _bonds(card: Gpu, cards: Sequence[Gpu]) -> list[Bond]:
    """Return the card's links, those of one kind together, the most NVLinks first."""
    index = {other.uuid: other.index for other in cards}
    found: dict[tuple[int, str], list[int]] = {}
    for link in card.links:
        kind = (link.nvlinks, link.pcie.value if link.pcie is not None else "")
        found.setdefault(kind, []).append(index[link.peer])
    closest_first = sorted(found.items(), key=lambda item: (-item[0][0], min(item[1])))
    return [Bond(peers=peers, nvlinks=n, pcie=pcie) for (n, pcie), peers in closest_first]
