"""The chosen set is the best connected one there is, and choosing stays quick."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpus.model import DeviceId, Gpu, Link, NodeInventory, PcieLevel, Source
from gpus.topology import best_set, score_set


def _uuid(index: int) -> DeviceId:
    return DeviceId(f"GPU-{index:02}")


def _node(count: int, links: dict[tuple[int, int], Link], numa: list[int | None]) -> NodeInventory:
    return NodeInventory(
        source=Source.NVML,
        gpus=tuple(
            Gpu(
                uuid=_uuid(i),
                index=i,
                numa_node=numa[i],
                links=tuple(link for (a, _), link in links.items() if a == i),
            )
            for i in range(count)
        ),
    )


def _pairs_of_two(count: int) -> NodeInventory:
    """0-1, 2-3, … joined by NVLink; the lower half on one NUMA node."""
    links = {}
    for i in range(0, count, 2):
        links[i, i + 1] = Link(peer=_uuid(i + 1), nvlinks=4, pcie=PcieLevel.SINGLE_SWITCH)
        links[i + 1, i] = Link(peer=_uuid(i), nvlinks=4, pcie=PcieLevel.SINGLE_SWITCH)
    return _node(count, links, [i // (count // 2) for i in range(count)])


@st.composite
def _nodes(draw: st.DrawFn, *, least: int = 1, most: int = 8) -> NodeInventory:
    count = draw(st.integers(least, most))
    level = st.none() | st.sampled_from(PcieLevel)
    nvlinks = st.sampled_from([0, 0, 1, 2, 18]) | st.integers(0, 2**31 - 1)
    links = {}
    for a, b in combinations(range(count), 2):
        match draw(st.sampled_from(["none", "told by one", "told by both"])):
            case "told by one":
                links[a, b] = Link(peer=_uuid(b), nvlinks=draw(nvlinks), pcie=draw(level))
            case "told by both":
                links[a, b] = Link(peer=_uuid(b), nvlinks=draw(nvlinks), pcie=draw(level))
                links[b, a] = replace(links[a, b], peer=_uuid(a))
    numa: st.SearchStrategy[int | None] = st.none() | st.integers(0, 1)
    return _node(count, links, [draw(numa) for _ in range(count)])


def _connections(a: Gpu, b: Gpu) -> tuple[int, int, int, int]:
    """Whether NVLink joins them, by how many links, how close they are on PCIe, the NUMA node."""
    told = [link for link in a.links if link.peer == b.uuid]
    told += [link for link in b.links if link.peer == a.uuid]
    nvlinks = min(told[0].nvlinks, 255) if told else 0
    pcie = told[0].pcie if told else None
    near = [PcieLevel.HOST_BRIDGE, PcieLevel.MULTI_SWITCH, PcieLevel.SINGLE_SWITCH, PcieLevel.BOARD]
    closeness = near.index(pcie) + 1 if pcie in near else 0
    if pcie is None:
        same_numa = a.numa_node is not None and a.numa_node == b.numa_node
    else:
        same_numa = pcie is not PcieLevel.SYSTEM
    return int(nvlinks > 0), nvlinks, closeness, int(same_numa)


Rank = tuple[int, ...]


def _rank(devices: Iterable[DeviceId], node: NodeInventory) -> Rank:
    """The criteria one after the other, each summed over all pairs."""
    chosen = [gpu for gpu in node.gpus if gpu.uuid in set(devices)]
    pairs = [_connections(a, b) for a, b in combinations(chosen, 2)]
    return tuple(sum(criterion) for criterion in zip(*pairs, strict=True)) or (0, 0, 0, 0)


def _by_brute_force(
    available: Collection[DeviceId], size: int, node: NodeInventory, must: Collection[DeviceId]
) -> tuple[DeviceId, ...]:
    """Own connections first, then those that stay among the rest, then the lowest indexes."""

    def worth(chosen: tuple[DeviceId, ...]) -> tuple[Rank, Rank]:
        return _rank(chosen, node), _rank(set(available) - set(chosen), node)

    sets = [s for s in combinations(sorted(available), size) if set(must) <= set(s)]
    return max(sets, key=worth)  # the first of equals


@given(node=_nodes(), data=st.data())
def test_the_chosen_set_is_the_one_that_brute_force_finds(
    node: NodeInventory, data: st.DataObject
) -> None:
    every = [gpu.uuid for gpu in node.gpus]
    available = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1))
    size = data.draw(st.integers(0, len(available)))
    must = data.draw(st.lists(st.sampled_from(available), unique=True, max_size=size))

    chosen = best_set(available, size=size, inventory=node, must_include=must)

    assert _by_brute_force(available, size, node, must) == chosen


@given(node=_nodes(least=2), data=st.data())
def test_scores_order_sets_as_the_criteria_do_one_after_the_other(
    node: NodeInventory, data: st.DataObject
) -> None:
    every = [gpu.uuid for gpu in node.gpus]
    size = data.draw(st.integers(1, len(every)))
    a, b = (
        data.draw(st.lists(st.sampled_from(every), unique=True, min_size=size, max_size=size))
        for _ in "ab"
    )

    by_score = (score_set(a, node) > score_set(b, node), score_set(a, node) == score_set(b, node))

    assert by_score == (_rank(a, node) > _rank(b, node), _rank(a, node) == _rank(b, node))


@settings(max_examples=10, deadline=None)  # comparing all sets takes its time
@given(node=_nodes(least=16, most=16), size=st.integers(1, 16))
def test_of_16_gpus_too_the_best_set_is_found_and_in_bounded_time(
    node: NodeInventory, size: int
) -> None:
    every = [gpu.uuid for gpu in node.gpus]
    pairs = {pair: score_set(pair, node) for pair in combinations(every, 2)}
    best = max(sum(pairs[pair] for pair in combinations(s, 2)) for s in combinations(every, size))
    began = time.monotonic()

    chosen = best_set(every, size=size, inventory=node)

    assert time.monotonic() - began < 2
    assert best == score_set(chosen, node)


def test_many_close_pcie_pairs_do_not_outweigh_one_nvlink() -> None:
    links = {
        (a, b): Link(peer=_uuid(b), pcie=PcieLevel.BOARD) for a, b in combinations(range(6), 2)
    }
    links[5, 6] = Link(peer=_uuid(6), nvlinks=1, pcie=PcieLevel.SYSTEM)
    node = _node(8, links, [None] * 8)

    chosen = best_set([gpu.uuid for gpu in node.gpus], size=6, inventory=node)

    assert {_uuid(5), _uuid(6)} <= set(chosen)


def test_gpus_that_are_all_joined_win_over_two_with_more_links_and_one_without() -> None:
    links = {(0, 1): Link(peer=_uuid(1), nvlinks=18)}
    for a, b in combinations((3, 4, 5), 2):
        links[a, b] = Link(peer=_uuid(b), nvlinks=2)
    node = _node(6, links, [0] * 6)

    chosen = best_set([gpu.uuid for gpu in node.gpus], size=3, inventory=node)

    assert chosen == (_uuid(3), _uuid(4), _uuid(5))


def test_nvlink_beats_pcie_and_pcie_beats_numa() -> None:
    links = {
        (0, 1): Link(peer=_uuid(1), pcie=PcieLevel.HOST_BRIDGE),
        (2, 3): Link(peer=_uuid(3), nvlinks=1, pcie=PcieLevel.SYSTEM),
    }
    node = _node(6, links, [0, 0, 0, 1, 0, 0])
    every = [gpu.uuid for gpu in node.gpus]
    assert best_set(every, size=2, inventory=node) == (_uuid(2), _uuid(3))
    assert best_set([_uuid(i) for i in (0, 1, 4)], size=2, inventory=node) == (_uuid(0), _uuid(1))
    assert best_set([_uuid(i) for i in (3, 4, 5)], size=2, inventory=node) == (_uuid(4), _uuid(5))


def test_a_single_gpu_is_taken_where_it_breaks_no_pair() -> None:
    node = _pairs_of_two(8)
    available = [_uuid(i) for i in range(8) if i != 4]  # the partner of 5 is taken
    assert best_set(available, size=1, inventory=node) == (_uuid(5),)


def test_what_is_prescribed_pulls_its_partner_in() -> None:
    node = _pairs_of_two(8)
    every = [gpu.uuid for gpu in node.gpus]
    chosen = best_set(every, size=2, inventory=node, must_include=[_uuid(6)])
    assert chosen == (_uuid(6), _uuid(7))


@pytest.mark.parametrize("count", [16, 32])
def test_time_is_bounded_on_large_nodes(count: int) -> None:
    node = _pairs_of_two(count)
    every = [gpu.uuid for gpu in node.gpus]
    began = time.monotonic()
    chosen = best_set(every, size=count // 2, inventory=node)
    # The lower half shares a NUMA node and keeps all its pairs together.
    assert score_set(chosen, node) == score_set(every[: count // 2], node)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("available", "size", "must"),
    [([], 1, []), ([0], 2, []), ([0, 1], 1, [0, 1]), ([0, 1], 1, [2])],
)
def test_an_impossible_question_is_refused(
    available: list[int], size: int, must: list[int]
) -> None:
    with pytest.raises(ValueError, match="cannot choose"):
        best_set(
            [_uuid(i) for i in available],
            size=size,
            inventory=_pairs_of_two(4),
            must_include=[_uuid(i) for i in must],
        )


def test_time_is_bounded_for_many_devices_without_connections() -> None:
    parts = [DeviceId(f"MIG-{i:03}") for i in range(112)]
    began = time.monotonic()
    assert best_set(parts, size=56, inventory=_pairs_of_two(16)) == tuple(parts[:56])
    assert time.monotonic() - began < 5


def test_devices_that_are_no_whole_gpus_are_chosen_without_opinion() -> None:
    node = _pairs_of_two(2)
    parts = [DeviceId("MIG-b"), DeviceId("MIG-a")]
    assert best_set(parts, size=1, inventory=node) == (DeviceId("MIG-a"),)
    assert score_set(parts, node) == 0
