"""Which of the free GPUs of a node are best taken together.

Of one level and the least capable that are enough, so that pods without special wishes leave the
better cards to others; among those the best connected (`gpus.topology`), which also costs the
rest the fewest connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from extender.placement.layout import Layout, Mask, bits, nvlinked, remember, union
from gpus.model import DeviceId, NodeInventory, Source
from gpus.topology import best_set, score_set
from gpus.wishes import Topology

#: Sets of mutually joined GPUs that are looked at in one node. Real boards have a handful; only an
#: invented one has more, and then some choices are not seen.
_MOST_CLIQUES = 256


def pick(layout: Layout, free: Mask, size: int, topology: Topology | None = None) -> Mask | None:
    """Choose `size` of the `free` GPUs, or None where no such set is connected as wished."""
    key = (free, size, topology)
    chosen = layout.picked.get(key)
    if chosen is None:
        chosen = remember(layout.picked, key, _pick(layout, free, size, topology))
    return chosen or None


def _pick(layout: Layout, free: Mask, size: int, topology: Topology | None) -> Mask:
    """Return the choice, or no GPUs where there is none."""
    if topology is None or size < 2:
        return _within(layout, free, size)
    rooms = (free & one for one in connected(layout, topology))
    sets = [
        (_worth(layout, gpus, room), gpus)
        for room in rooms
        if (gpus := _within(layout, room, size))
    ]
    return max(sets)[1] if sets else 0


def is_connected(layout: Layout, gpus: Mask, topology: Topology | None) -> bool:
    """Tell whether every two of the GPUs are connected as wished."""
    if topology is None or gpus.bit_count() < 2:
        return True
    return any(not gpus & ~one for one in connected(layout, topology))


def can_connect(layout: Layout, gpus: Mask, size: int, topology: Topology | None) -> bool:
    """Tell whether so many of the GPUs are connected as wished."""
    if topology is None or size < 2:
        return gpus.bit_count() >= size
    return any((gpus & one).bit_count() >= size for one in connected(layout, topology))


def connected(layout: Layout, topology: Topology) -> tuple[Mask, ...]:
    """Return the largest sets of GPUs in which every two are connected as wished."""
    found = layout.connected.get(topology)
    if found is None:
        if topology is Topology.NUMA:
            found = _numa_nodes(layout)
        else:
            joined = nvlinked(layout.cards, layout.slots)
            found = tuple(islice(_cliques(joined, 0, union(layout.islands), 0), _MOST_CLIQUES))
        layout.connected[topology] = found
    return found


def _within(layout: Layout, free: Mask, size: int) -> Mask:
    if free.bit_count() < size:
        return 0
    among, _ = layout.of_one_level(free, size)
    if among.bit_count() == size:
        return among
    places = _places(layout, among)
    best = best_set(places.keys(), size=size, inventory=_inventory(layout))
    return union(1 << places[name] for name in best)


def _worth(layout: Layout, gpus: Mask, room: Mask) -> tuple[int, int, int, int]:
    """Order of connected sets: least capable, best connected, where least is left, first."""
    level = max(layout.levels[place] for place in bits(gpus))
    score = score_set(_places(layout, gpus).keys(), _inventory(layout))
    return -level, score, -room.bit_count(), -gpus


def _places(layout: Layout, gpus: Mask) -> dict[DeviceId, int]:
    return {layout.cards[layout.slots[place].card].uuid: place for place in bits(gpus)}


def _inventory(layout: Layout) -> NodeInventory:
    return NodeInventory(source=Source.NVML, gpus=layout.cards)


def _numa_nodes(layout: Layout) -> tuple[Mask, ...]:
    nodes: dict[int, Mask] = {}
    for place in bits(layout.whole):
        node = layout.cards[layout.slots[place].card].numa_node
        if node is not None:
            nodes[node] = nodes.get(node, 0) | 1 << place
    return tuple(nodes.values())


def _cliques(joined: Mapping[int, Mask], taken: Mask, rest: Mask, done: Mask) -> Iterator[Mask]:
    """Yield the largest sets of mutually joined GPUs (Bron and Kerbosch, with a pivot)."""
    if not rest and not done:
        yield taken
        return
    pivot = max(bits(rest | done), key=lambda place: (joined[place] & rest).bit_count())
    for place in bits(rest & ~joined[pivot]):
        near = joined[place]
        yield from _cliques(joined, taken | 1 << place, rest & near, done & near)
        rest &= ~(1 << place)
        done |= 1 << place
