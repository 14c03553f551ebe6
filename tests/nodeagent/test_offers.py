"""What is offered under which name, and which of it kubelet is told to prefer."""

from __future__ import annotations

import time
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.model import (
    GPU_RESOURCE,
    DeviceId,
    Gpu,
    Health,
    Link,
    MigInstance,
    NodeInventory,
    ResourceName,
    Source,
)
from gpus.topology import score_set
from nodeagent.deviceplugin.devices import (
    MigStrategy,
    NothingToOffer,
    Offer,
    Offering,
    Slicing,
    device_of,
    offers,
    withheld,
)
from nodeagent.deviceplugin.preference import preferred
from tests.nodeagent.plugin_parts import node

SHARED = ResourceName("nvidia.com/gpu.shared")


def _split(index: int, *profiles: str) -> Gpu:
    mig = tuple(
        MigInstance(uuid=DeviceId(f"MIG-{index}-{n}"), profile=p) for n, p in enumerate(profiles)
    )
    return Gpu(uuid=DeviceId(f"GPU-{index}"), index=index, mig_enabled=True, mig=mig)


def _machine(*gpus: Gpu) -> NodeInventory:
    return NodeInventory(source=Source.NVML, gpus=gpus)


WHOLE = Gpu(uuid=DeviceId("GPU-9"), index=9)


def _names(inventory: NodeInventory, strategy: MigStrategy) -> dict[str, list[str]]:
    found = offers(inventory, Offering(mig=strategy))
    return {str(name): [d.id for d in offer.devices] for name, offer in found.items()}


def test_mixed_offers_instances_under_their_profiles_beside_whole_gpus() -> None:
    machine = _machine(_split(0, "1g.5gb", "2g.10gb"), _split(1, "1g.5gb+me"), WHOLE)
    assert _names(machine, MigStrategy.MIXED) == {
        "nvidia.com/mig-1g.5gb": ["MIG-0-0"],
        "nvidia.com/mig-2g.10gb": ["MIG-0-1"],
        "nvidia.com/mig-1g.5gb.me": ["MIG-1-0"],
        "nvidia.com/gpu": ["GPU-9"],
    }


def test_single_offers_equal_instances_as_gpus() -> None:
    machine = _machine(_split(0, "1g.5gb", "1g.5gb"), _split(1, "1g.5gb"))
    assert _names(machine, MigStrategy.SINGLE) == {
        "nvidia.com/gpu": ["MIG-0-0", "MIG-0-1", "MIG-1-0"]
    }
    assert _names(_machine(WHOLE), MigStrategy.SINGLE) == {"nvidia.com/gpu": ["GPU-9"]}


@pytest.mark.parametrize(
    ("gpus", "complaint"),
    [
        ((_split(0, "1g.5gb"), WHOLE), "GPUs 9 are not split"),
        ((_split(0, "1g.5gb"), _split(1)), "GPUs 1 are not split"),
        ((_split(0, "1g.5gb", "2g.10gb"),), "there are 1g.5gb, 2g.10gb"),
    ],
)
def test_single_refuses_what_is_not_uniform(gpus: tuple[Gpu, ...], complaint: str) -> None:
    with pytest.raises(NothingToOffer, match=complaint):
        offers(_machine(*gpus), Offering(mig=MigStrategy.SINGLE))


def test_none_offers_every_gpu_whole() -> None:
    machine = _machine(_split(0, "1g.5gb"), WHOLE)
    assert _names(machine, MigStrategy.NONE) == {"nvidia.com/gpu": ["GPU-0", "GPU-9"]}


def test_slicing_lists_each_device_several_times_with_its_health_and_numa_node() -> None:
    sick = Gpu(uuid=DeviceId("GPU-1"), index=1, health=Health.FAULTY, numa_node=1)
    sliced = Slicing(replicas=2, shown_as=SHARED, one_at_a_time=True)
    offering = Offering(slicing={GPU_RESOURCE: sliced}, packed=True)
    (offer,) = offers(_machine(WHOLE, sick), offering).values()
    assert (offer.resource, offer.one_at_a_time, offer.packed) == (SHARED, True, True)
    assert [(d.id, d.healthy, d.numa_node) for d in offer.devices] == [
        ("GPU-9::0", True, None),
        ("GPU-9::1", True, None),
        ("GPU-1::0", False, 1),
        ("GPU-1::1", False, 1),
    ]


def test_slicing_of_one_resource_leaves_the_others() -> None:
    name = ResourceName("nvidia.com/mig-1g.5gb")
    sliced = Slicing(replicas=3, shown_as=ResourceName(f"{name}.shared"))
    found = offers(_machine(_split(0, "1g.5gb"), WHOLE), Offering(slicing={name: sliced}))
    assert {str(n): len(o.devices) for n, o in found.items()} == {
        f"{name}.shared": 3,
        GPU_RESOURCE: 1,
    }


def test_what_is_withheld_is_listed_and_not_healthy() -> None:
    (offer,) = withheld(offers(node(2), Offering())).values()
    assert [(d.id, d.healthy) for d in offer.devices] == [("GPU-0", False), ("GPU-1", False)]


# GetPreferredAllocation


def _whole(inventory: NodeInventory) -> Offer:
    return offers(inventory, Offering())[GPU_RESOURCE]


@st.composite
def _linked(draw: st.DrawFn) -> NodeInventory:
    count = draw(st.integers(1, 8))
    gpus = []
    for i in range(count):
        links = tuple(
            Link(peer=DeviceId(f"GPU-{j}"), nvlinks=draw(st.sampled_from([0, 0, 2, 4, 18])))
            for j in range(i)
        )
        numa = draw(st.sampled_from([None, 0, 1]))
        gpus.append(Gpu(uuid=DeviceId(f"GPU-{i}"), index=i, links=links, numa_node=numa))
    return _machine(*gpus)


@given(st.data())
def test_no_other_choice_is_better_connected(data: st.DataObject) -> None:
    inventory = data.draw(_linked())
    every = [gpu.uuid for gpu in inventory.gpus]
    available = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1))
    size = data.draw(st.integers(1, len(available)))
    must = data.draw(st.lists(st.sampled_from(available), unique=True, max_size=size))
    chosen = preferred(available, must_include=must, size=size, offer=_whole(inventory))
    assert len(set(chosen)) == size
    assert set(must) <= set(chosen) <= set(available)
    best = max(
        score_set(each, inventory)
        for each in combinations(available, size)
        if set(must) <= set(each)
    )
    assert score_set([DeviceId(each) for each in chosen], inventory) == best


def test_sixteen_gpus_are_chosen_from_in_bounded_time() -> None:
    # Every pair of another width: nothing can be cut off early because it is alike.
    gpus = tuple(
        Gpu(
            uuid=DeviceId(f"GPU-{i}"),
            index=i,
            links=tuple(
                Link(peer=DeviceId(f"GPU-{j}"), nvlinks=(i * 7 + j * 3) % 19) for j in range(i)
            ),
        )
        for i in range(16)
    )
    offer = _whole(_machine(*gpus))
    every = [gpu.uuid for gpu in gpus]
    began = time.process_time()
    for size in range(1, 17):
        assert len(preferred(every, must_include=every[:1], size=size, offer=offer)) == size
    assert time.process_time() - began < 16 * 2.0  # kubelet has no deadline here, pods have


def _sliced(*, replicas: int, packed: bool = False, gpus: int = 3) -> Offer:
    sliced = Slicing(replicas=replicas, shown_as=GPU_RESOURCE)
    offering = Offering(slicing={GPU_RESOURCE: sliced}, packed=packed)
    return offers(node(gpus), offering)[GPU_RESOURCE]


def test_replicas_are_spread_over_the_least_used_gpus_or_packed_on_the_most_used() -> None:
    free = ["GPU-0::2", "GPU-1::0", "GPU-1::1", "GPU-1::2", "GPU-2::1", "GPU-2::2"]
    spread = preferred(free, must_include=[], size=1, offer=_sliced(replicas=3))
    assert spread == ("GPU-1::0",)
    spread = preferred(free, must_include=[], size=3, offer=_sliced(replicas=3))
    assert Counter(map(device_of, spread)) == {"GPU-1": 2, "GPU-2": 1}
    packed = preferred(free, must_include=[], size=2, offer=_sliced(replicas=3, packed=True))
    assert packed == ("GPU-0::2", "GPU-2::1")


@given(st.data())
def test_replicas_that_are_chosen_are_free_and_hold_those_prescribed(data: st.DataObject) -> None:
    offer = _sliced(replicas=data.draw(st.integers(2, 5)), packed=data.draw(st.booleans()))
    every = [device.id for device in offer.devices]
    available = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1))
    size = data.draw(st.integers(1, len(available)))
    must = data.draw(st.lists(st.sampled_from(available), unique=True, max_size=size))
    chosen = preferred(available, must_include=must, size=size, offer=offer)
    assert len(set(chosen)) == len(chosen) == size
    assert set(must) <= set(chosen) <= set(available)
    if not offer.packed:
        # As even as it can be: a GPU with a free replica left is no less used than a chosen one.
        used = Counter(device_of(each) for each in {*every} - {*available} | {*chosen})
        open_ = {device_of(each) for each in {*available} - {*chosen}}
        own = {device_of(each) for each in {*chosen} - {*must}}
        assert all(used[a] <= used[b] + 1 for a in own for b in open_)


@pytest.mark.parametrize(
    ("size", "must"), [(3, []), (0, ["GPU-0::0"]), (-1, []), (1, ["GPU-7::0"])]
)
def test_what_cannot_be_chosen_is_an_error(size: int, must: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot choose"):
        preferred(["GPU-0::0", "GPU-1::1"], must_include=must, size=size, offer=_sliced(replicas=2))
