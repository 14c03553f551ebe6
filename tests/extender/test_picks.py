"""Which GPUs are taken together: equal to trying every set, and whole where it can be."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from extender.placement.layout import Layout, Layouts, bits
from extender.placement.picks import can_connect, is_connected, pick
from gpus.model import DeviceId, Gpu, Link, NodeInventory, PcieLevel, Source
from gpus.topology import score_set
from gpus.wishes import Topology

GIB = 1 << 30


@st.composite
def boards(draw: st.DrawFn) -> NodeInventory:
    """Up to eight GPUs with any links, of one kind or two, on NUMA nodes that may be unknown."""
    count = draw(st.integers(1, 8))
    pairs = list(combinations(range(count), 2))
    nvlinks = {pair: draw(st.sampled_from((0, 0, 1, 4))) for pair in pairs}
    kinds = draw(st.sampled_from(((80,), (24, 80))))
    return NodeInventory(
        source=Source.NVML,
        gpus=tuple(
            Gpu(
                uuid=DeviceId(f"GPU-{index}"),
                index=index,
                memory_bytes=draw(st.sampled_from(kinds)) * GIB,
                numa_node=draw(st.sampled_from((None, 0, 1))),
                links=tuple(
                    Link(peer=DeviceId(f"GPU-{b}"), nvlinks=n, pcie=PcieLevel.SYSTEM)
                    for (a, b), n in nvlinks.items()
                    if a == index
                ),
            )
            for index in range(count)
        ),
    )


def joined(board: NodeInventory, topology: Topology | None, a: int, b: int) -> bool:
    one, other = board.gpus[a], board.gpus[b]
    if topology is Topology.NUMA:
        return one.numa_node is not None and one.numa_node == other.numa_node
    if topology is Topology.NVLINK:
        return any(link.nvlinks and link.peer == other.uuid for link in one.links)
    return True


def sets(board: NodeInventory, free: int, size: int, topology: Topology | None) -> list[int]:
    """Every set of that size that is connected as wished."""
    return [
        sum(1 << place for place in chosen)
        for chosen in combinations(bits(free), size)
        if all(joined(board, topology, a, b) for a, b in combinations(chosen, 2))
    ]


def level(layout: Layout, mask: int) -> int:
    return max(layout.levels[place] for place in bits(mask))


def score(board: NodeInventory, mask: int) -> int:
    return score_set([board.gpus[place].uuid for place in bits(mask)], board)


@given(boards(), st.integers(1, 255), st.integers(1, 8), st.sampled_from((None, *Topology)))
def test_the_choice_equals_brute_force(
    board: NodeInventory, some: int, size: int, topology: Topology | None
) -> None:
    layout = Layouts().of(board)
    free = some & layout.whole
    every = sets(board, free, size, topology)

    chosen = pick(layout, free, size, topology)

    assert can_connect(layout, free, size, topology) == bool(every)
    assert (chosen is not None) == bool(every)
    if chosen is None:
        return
    assert chosen in every
    assert is_connected(layout, chosen, topology)
    alike = [m for m in every if len({layout.levels[place] for place in bits(m)}) == 1]
    if topology is None and alike:
        # Of one kind, the least capable one of which there are enough, and best connected.
        least = min(level(layout, mask) for mask in alike)
        assert level(layout, chosen) == least
        same = [mask for mask in alike if level(layout, mask) == least]
        assert score(board, chosen) == max(score(board, mask) for mask in same)
    elif len(set(layout.levels)) == 1:
        assert score(board, chosen) == max(score(board, mask) for mask in every)


@given(boards(), st.integers(0, 255), st.sampled_from(tuple(Topology)))
def test_connected_means_every_pair(board: NodeInventory, some: int, topology: Topology) -> None:
    layout = Layouts().of(board)
    mask = some & layout.whole

    pairs = combinations(bits(mask), 2)

    assert is_connected(layout, mask, topology) == all(
        joined(board, topology, a, b) for a, b in pairs
    )


def switched(count: int, island: int) -> Layout:
    """Return cards in islands of that size, all joined within each."""
    return Layouts().of(
        NodeInventory(
            source=Source.NVML,
            gpus=tuple(
                Gpu(
                    uuid=DeviceId(f"GPU-{index}"),
                    index=index,
                    links=tuple(
                        Link(peer=DeviceId(f"GPU-{peer}"), nvlinks=4)
                        for peer in range(count)
                        if peer != index and peer // island == index // island
                    ),
                )
                for index in range(count)
            ),
        )
    )


def test_a_started_island_is_used_up_before_a_whole_one_is_broken() -> None:
    layout = switched(8, 4)

    assert pick(layout, 0b1111_1101, 1) == 0b0000_0001
    assert pick(layout, 0b1111_1100, 2) == 0b0000_1100
    assert pick(layout, 0b1111_1100, 2, Topology.NVLINK) == 0b0000_1100
    assert pick(layout, 0b1111_1100, 3, Topology.NVLINK) == 0b0111_0000
    assert pick(layout, 0b1110_0111, 4, Topology.NVLINK) is None


def test_sixteen_gpus_are_chosen_from_quickly() -> None:
    layout = switched(16, 8)

    chosen = pick(layout, 0b0111_1111_1111_1110, 7, Topology.NVLINK)

    assert chosen in (0b0000_0000_1111_1110, 0b0111_1111_0000_0000)
    assert pick(layout, 0xFFFF, 8) in (0x00FF, 0xFF00)
