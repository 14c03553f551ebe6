"""The devices of one node by name, on the layout that it shares with others of its model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from extender.placement.layout import Layout, Layouts, Mask, bits
from gpus.model import DeviceId, NodeInventory
from gpus.wishes import Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """`ids` names the devices that can be given out, `cards` the GPUs that they are or belong to.

    Both are in the order of the layout. `digest` tells which text it was read from.
    """

    digest: bytes
    layout: Layout
    ids: tuple[DeviceId, ...]
    cards: tuple[DeviceId, ...]

    def mask(self, devices: Iterable[DeviceId]) -> Mask:
        """Return those that are named, and all instances of a card that is named.

        Whoever was given a card before it was cut into instances has those too.
        """
        found = 0
        for device in devices:
            if device in self.ids:
                found |= 1 << self.ids.index(device)
            elif device in self.cards:
                found |= self.layout.instances.get(self.cards.index(device), 0)
        return found

    def names(self, mask: Mask) -> list[DeviceId]:
        """Return the devices of a set by name."""
        return [self.ids[place] for place in bits(mask)]

    def named(self, devices: Collection[DeviceId]) -> Mask:
        """Do as `mask` does, quickly where none of many names is known here."""
        known = [device for device in self.ids if device in devices]
        if self.cards is not self.ids:
            known += [device for device in self.cards if device in devices]
        return self.mask(known) if known else 0

    def admitted(self, wishes: Wishes, *, but_for_uuids: Wishes) -> tuple[Mask, Mask]:
        """Return the devices of a wanted product, and those that meet all wishes.

        `but_for_uuids` are the same wishes without UUIDs, on which a whole layout is judged once.
        """
        product, meets = self.layout.admitted(but_for_uuids)
        if wishes.uuids:
            meets &= self.named(wishes.uuids)
        if wishes.excluded:
            meets &= ~self.named(wishes.excluded)
        return product, meets


def devices_of(inventory: NodeInventory, *, digest: bytes, layouts: Layouts) -> Devices:
    """Return the devices of an inventory."""
    ids = tuple(device for _, device, _ in inventory.devices())
    cards = tuple(gpu.uuid for gpu in inventory.gpus)
    return Devices(
        digest=digest,
        layout=layouts.of(inventory),
        ids=ids,
        cards=ids if ids == cards else cards,
    )
