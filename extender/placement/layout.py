"""What GPUs a node has and how they are connected, without names: nodes of one model share it.

At thousands of nodes this is what keeps the ledger small and the choice of GPUs quick: links are
kept once per model, and so is every choice that was made among them. Devices are numbered in the
order of the inventory; a set of them is an integer with one bit each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import TypeVar
from weakref import WeakValueDictionary

from gpus.model import (
    GPU_RESOURCE,
    DeviceId,
    Gpu,
    Health,
    Link,
    MigInstance,
    NodeInventory,
    ResourceName,
)
from gpus.wishes import Topology, Wishes, admits, of_product

#: Devices as bits, the first of the inventory lowest.
Mask = int
Counts = Mapping[ResourceName, int]

K = TypeVar("K")
V = TypeVar("V")

#: Answers of each kind that one layout remembers; then it starts over.
_MEMORY = 4096


@dataclass(frozen=True, slots=True)
class Slot:
    """A device that can be given out, of the card with that place; `memory` is its own bytes."""

    card: int
    resource: ResourceName
    memory: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What it would mean to take some GPUs; see `Layout.outlook`."""

    level: int
    breaks: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Layout:
    """Made by `Layouts.of` only, so that equal layouts are one object.

    `cards` bear places instead of UUIDs. The memos are the one thing that changes: they hold
    answers that depend on nothing else, so that threads may fill them at once.
    """

    cards: tuple[Gpu, ...]
    slots: tuple[Slot, ...]
    healthy: Mask
    #: The devices of each resource.
    masks: Mapping[ResourceName, Mask]
    total: Counts
    able: Counts
    #: The instances of each card that is cut up.
    instances: Mapping[int, Mask]
    levels: tuple[int, ...]
    #: The highest level of a healthy GPU: where kubelet chooses, it may be that one.
    top: int
    #: Sets of GPUs that NVLink joins, directly or through others; single GPUs left out.
    islands: tuple[Mask, ...]
    connected: dict[Topology, tuple[Mask, ...]] = field(default_factory=dict)
    picked: dict[tuple[Mask, int, Topology | None], Mask] = field(default_factory=dict)
    _admitted: dict[Wishes, tuple[Mask, Mask]] = field(default_factory=dict)
    _outlooks: dict[tuple[Mask, int], Outlook] = field(default_factory=dict)

    @property
    def whole(self) -> Mask:
        """The GPUs that are not cut up."""
        return self.masks.get(GPU_RESOURCE, 0)

    def admitted(self, wishes: Wishes) -> tuple[Mask, Mask]:
        """Return the devices of a wanted product, and those that meet all wishes.

        `wishes` must not name UUIDs.
        """
        found = self._admitted.get(wishes)
        if found is None:
            product = meets = 0
            for place, slot in enumerate(self.slots):
                card = self.cards[slot.card]
                product |= of_product(wishes, card) << place
                meets |= admits(wishes, card, card.uuid, slot.memory) << place
            found = remember(self._admitted, wishes, (product, meets))
        return found

    def outlook(self, free: Mask, size: int) -> Outlook:
        """Tell what taking `size` of the `free` GPUs would mean, without choosing them.

        `level` is that of the most capable one taken, `breaks` whether an island of which all
        healthy GPUs are free would be left in part.
        """
        if not size:
            return Outlook(level=0, breaks=False)
        found = self._outlooks.get((free, size))
        if found is None:
            among, level = self.of_one_level(free, size)
            value = Outlook(level=level, breaks=self._breaks(among, size, free=free))
            found = remember(self._outlooks, (free, size), value)
        return found

    def of_memory(self, size: int) -> Mask:
        """Return the devices that have at least so many bytes each."""
        slots = enumerate(self.slots)
        return union(1 << place for place, slot in slots if (slot.memory or 0) >= size)

    def is_whole_island_of(self, place: int, *, free: Mask) -> bool:
        """Tell whether a GPU is in an island of which all healthy GPUs are free."""
        return any(
            island >> place & 1 and not island & self.healthy & ~free for island in self.islands
        )

    def of_one_level(self, free: Mask, size: int) -> tuple[Mask, int]:
        """Return the least capable GPUs of one level that are enough; else all, and the highest."""
        by_level: dict[int, Mask] = {}
        for place in bits(free):
            by_level[self.levels[place]] = by_level.get(self.levels[place], 0) | 1 << place
        for level in sorted(by_level):
            if by_level[level].bit_count() >= size:
                return by_level[level], level
        return free, max(by_level, default=0)

    def _breaks(self, among: Mask, size: int, *, free: Mask) -> bool:
        """Tell whether no started island, no single GPUs and no exact island has room."""
        inside = 0
        for island in self.islands:
            inside |= island
            well, here = island & self.healthy, (island & among).bit_count()
            if here >= size and (well & ~free or here == size):
                return False
        return bool(among & inside) and (among & ~inside).bit_count() < size


class Layouts:
    """The layouts in use; they go when the last node that has one goes. For one thread."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[Gpu, ...], Layout] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, inventory: NodeInventory) -> Layout:
        """Return the layout of a node."""
        cards = _anonymous(inventory.gpus)
        layout = self._known.get(cards)
        if layout is None:
            layout = self._known[cards] = _layout(cards)
        return layout


def bits(mask: Mask) -> Iterator[int]:
    """The places of the devices in a set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def union(masks: Iterable[Mask]) -> Mask:
    """Return all devices that are in any of the sets."""
    return reduce(or_, masks, 0)


def remember(memo: dict[K, V], key: K, value: V) -> V:
    """Keep an answer, forgetting all earlier ones where they are too many."""
    if len(memo) >= _MEMORY:
        memo.clear()
    memo[key] = value
    return value


def _anonymous(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """Return cards without what tells nodes of one model apart: addresses and UUIDs."""
    gpus = tuple(gpus)
    name_of = {gpu.uuid: DeviceId(f"GPU-{place}") for place, gpu in enumerate(gpus)}
    return tuple(
        replace(
            gpu,
            uuid=name_of[gpu.uuid],
            minor=None,
            bdf=None,
            health_reason="",
            health_since=None,
            links=tuple(
                Link(peer=name_of[link.peer], nvlinks=link.nvlinks, pcie=link.pcie)
                for link in gpu.links
            ),
            mig=tuple(
                MigInstance(
                    uuid=DeviceId(f"MIG-{place}-{number}"),
                    profile=instance.profile,
                    memory_bytes=instance.memory_bytes,
                )
                for number, instance in enumerate(gpu.mig)
            ),
        )
        for place, gpu in enumerate(gpus)
    )


def _layout(cards: tuple[Gpu, ...]) -> Layout:
    slots: list[Slot] = []
    healthy = 0
    masks: dict[ResourceName, Mask] = {}
    instances: dict[int, Mask] = {}
    for place, card in enumerate(cards):
        memory = {instance.uuid: instance.memory_bytes for instance in card.mig}
        if card.mig_enabled:
            instances[place] = (1 << len(card.mig)) - 1 << len(slots)
        for device, resource in card.devices():
            bit = 1 << len(slots)
            healthy |= bit if card.health is Health.HEALTHY else 0
            masks[resource] = masks.get(resource, 0) | bit
            slots.append(Slot(place, resource, memory.get(device, card.memory_bytes)))
    levels = tuple(_level(cards[slot.card], slot.resource) for slot in slots)
    return Layout(
        cards=cards,
        slots=tuple(slots),
        healthy=healthy,
        masks=masks,
        total={name: mask.bit_count() for name, mask in masks.items()},
        able={name: (mask & healthy).bit_count() for name, mask in masks.items()},
        instances=instances,
        levels=levels,
        top=max((levels[place] for place in bits(healthy)), default=0),
        islands=_islands(nvlinked(cards, slots)),
    )


def _level(card: Gpu, resource: ResourceName) -> int:
    """Order GPUs by what they are good for: memory in GiB, then compute capability.

    What is not known of a GPU counts as nothing: nobody who wishes for something special can be
    given it, so those who do not should have it. Instances of one profile are all alike.
    """
    if resource != GPU_RESOURCE:
        return 0
    major, minor = card.compute_capability or (0, 0)
    return ((card.memory_bytes or 0) >> 30) * 1_000_000 + major * 1000 + minor


def nvlinked(cards: Sequence[Gpu], slots: Sequence[Slot]) -> Mapping[int, Mask]:
    """Return for each whole GPU those that NVLink joins it to, whichever side tells."""
    place_of = {cards[s.card].uuid: i for i, s in enumerate(slots) if s.resource == GPU_RESOURCE}
    joined = dict.fromkeys(place_of.values(), 0)
    for name, place in place_of.items():
        for link in cards[slots[place].card].links:
            peer = place_of.get(link.peer)
            if link.nvlinks and peer is not None and link.peer != name:
                joined[place] |= 1 << peer
                joined[peer] |= 1 << place
    return joined


def _islands(joined: Mapping[int, Mask]) -> tuple[Mask, ...]:
    islands: list[Mask] = []
    seen = 0
    for start in joined:
        if seen >> start & 1:
            continue
        island, rim = 0, 1 << start
        while rim:
            island |= rim
            rim = union(joined[place] for place in bits(rim)) & ~island
        seen |= island
        if island.bit_count() > 1:
            islands.append(island)
    return tuple(islands)
