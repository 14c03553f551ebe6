"""The chosen set is the best connected one there is, and choosing stays quick."""

from __future__ import annotations

import time
from itertools import combinations

import pytest
from hypothesis import given
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
def _nodes(draw: st.DrawFn) -> NodeInventory:
    count = draw(st.integers(1, 7))
    level = st.none() | st.sampled_from(PcieLevel)
    links = {
        (a, b): Link(peer=_uuid(b), nvlinks=draw(st.integers(0, 18)), pcie=draw(level))
        for a, b in combinations(range(count), 2)
        if draw(st.booleans())
    }
    numa: st.SearchStrategy[int | None] = st.none() | st.integers(0, 1)
    return _node(count, links, [draw(numa) for _ in range(count)])


@given(node=_nodes(), data=st.data())
def test_no_other_set_of_that_size_is_better_connected(
    node: NodeInventory, data: st.DataObject
) -> None:
    every = [gpu.uuid for gpu in node.gpus]
    available = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1))
    size = data.draw(st.integers(1, len(available)))
    must = data.draw(st.lists(st.sampled_from(available), unique=True, max_size=size))
    chosen = best_set(available, size=size, inventory=node, must_include=must)
    assert len(set(chosen)) == size
    assert set(must) <= set(chosen) <= set(available)
    others = (set(s) for s in combinations(available, size) if set(must) <= set(s))
    assert score_set(chosen, node) == max(score_set(s, node) for s in others)


def test_nvlink_beats_pcie_and_pcie_beats_numa() -> None:
    links = {
        (0, 1): Link(peer=_uuid(1), pcie=PcieLevel.BOARD),
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


def test_devices_that_are_no_whole_gpus_are_chosen_without_opinion() -> None:
    node = _pairs_of_two(2)
    parts = [DeviceId("MIG-b"), DeviceId("MIG-a")]
    assert best_set(parts, size=1, inventory=node) == (DeviceId("MIG-a"),)
    assert score_set(parts, node) == 0
