"""What nodes of one model share, and that it says of each device what the inventory says."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from extender.placement.devices import Devices, devices_of
from extender.placement.layout import Layouts, bits, union
from gpus.model import DeviceId, Gpu, Health, Link, MigInstance, NodeInventory, Source
from gpus.wishes import Wishes, admits, of_product
from tests.builders import NodeBuilder, node
from tests.extender.ledgers import node_facts

PRODUCTS = ("NVIDIA A100", "NVIDIA L4", None)
MEMORIES = (None, 24 << 30, 80 << 30)


def devices(*gpus: Gpu, layouts: Layouts | None = None) -> Devices:
    inventory = NodeInventory(source=Source.NVML, gpus=gpus)
    return devices_of(inventory, digest=b"", layouts=Layouts() if layouts is None else layouts)


@st.composite
def cards(draw: st.DrawFn) -> list[Gpu]:
    count = draw(st.integers(1, 5))
    return [
        Gpu(
            uuid=DeviceId(f"GPU-{index}"),
            index=index,
            product=draw(st.sampled_from(PRODUCTS)),
            memory_bytes=draw(st.sampled_from(MEMORIES)),
            compute_capability=draw(st.sampled_from((None, (8, 0), (9, 0)))),
            health=draw(st.sampled_from((Health.HEALTHY, Health.LOST))),
            mig_enabled=(cut := draw(st.booleans())),
            mig=tuple(
                MigInstance(
                    uuid=DeviceId(f"MIG-{index}-{number}"),
                    profile="1g.10gb",
                    memory_bytes=draw(st.sampled_from((None, 10 << 30))),
                )
                for number in range(draw(st.integers(0, 3)) if cut else 0)
            ),
        )
        for index in range(count)
    ]


@st.composite
def wishes(draw: st.DrawFn) -> Wishes:
    names = [f"GPU-{n}" for n in range(5)] + ["MIG-0-1", "MIG-1-0", "MIG-x"]
    some = st.frozensets(st.sampled_from([DeviceId(name) for name in names]), max_size=3)
    return Wishes(
        products=draw(st.sampled_from(((), ("*a100",), ("NVIDIA-L4", "*H100*")))),
        uuids=draw(some),
        excluded=draw(some),
        min_memory=draw(st.sampled_from((0, 10 << 30, 40 << 30))),
        min_compute=draw(st.sampled_from((None, (8, 6)))),
    )


@given(cards(), wishes())
def test_what_a_layout_admits_is_what_the_contract_admits(gpus: list[Gpu], wished: Wishes) -> None:
    found = devices(*gpus)
    plain = Wishes(
        products=wished.products, min_memory=wished.min_memory, min_compute=wished.min_compute
    )

    product, meets = found.admitted(wished, but_for_uuids=plain)

    inventory = NodeInventory(source=Source.NVML, gpus=tuple(gpus))
    sizes = {m.uuid: m.memory_bytes for gpu in gpus for m in gpu.mig}
    every = list(inventory.devices())
    assert set(found.names(product)) == {d for gpu, d, _ in every if of_product(wished, gpu)}
    assert set(found.names(meets)) == {
        d for gpu, d, _ in every if admits(wished, gpu, d, sizes.get(d, gpu.memory_bytes))
    }


@given(cards())
def test_devices_keep_their_names_resources_and_health(gpus: list[Gpu]) -> None:
    found = devices(*gpus)
    inventory = NodeInventory(source=Source.NVML, gpus=tuple(gpus))

    every = union(found.layout.masks.values())
    assert found.names(every) == [device for _, device, _ in inventory.devices()]
    resources = {device: resource for _, device, resource in inventory.devices()}
    assert {
        found.ids[place]: name for name, mask in found.layout.masks.items() for place in bits(mask)
    } == resources
    well = {device for gpu, device, _ in inventory.devices() if gpu.health is Health.HEALTHY}
    assert set(found.names(found.layout.healthy)) == well
    for gpu in gpus:
        assert found.names(found.mask([gpu.uuid])) == [device for device, _ in gpu.devices()]
    assert found.mask([DeviceId("GPU-elsewhere")]) == 0


def test_nodes_of_one_model_share_a_layout_and_the_last_takes_it_along() -> None:
    layouts = Layouts()
    one, two = (devices(*node(name).with_gpus(8).gpus, layouts=layouts) for name in ("a", "b"))
    sick = node("c").with_gpus(8).health(Health.LOST, 3).gpus
    other = devices(*sick, layouts=layouts)

    assert one.layout is two.layout
    assert other.layout is not one.layout
    assert one.ids != two.ids
    assert len(layouts) == 2
    del one, two
    gc.collect()
    assert len(layouts) == 1


def test_levels_order_by_memory_then_compute_and_the_unknown_comes_first() -> None:
    kinds: list[tuple[int | None, tuple[int, int] | None]] = [
        (None, (12, 0)),
        (16 << 30, (7, 5)),
        (24 << 30, (8, 6)),
        (24 << 30, (8, 9)),
        (80 << 30, None),
        (80 << 30, (9, 0)),
    ]
    mixed = devices(
        *(
            Gpu(uuid=DeviceId(f"GPU-{i}"), index=i, memory_bytes=memory, compute_capability=compute)
            for i, (memory, compute) in enumerate(kinds)
        )
    )

    assert list(mixed.layout.levels) == sorted(mixed.layout.levels)
    assert len(set(mixed.layout.levels)) == len(kinds)


def linked(*pairs: tuple[int, int], of: int) -> NodeBuilder:
    """Return a node whose cards NVLink joins as named, each told by one side only."""
    builder = node("n").with_gpus(of)
    for index in range(of):
        links = tuple(
            Link(peer=DeviceId(f"GPU-n-{other}"), nvlinks=2) for at, other in pairs if at == index
        )
        builder = builder.cards(index, links=links)
    return builder


def test_islands_are_what_nvlink_joins_directly_or_not() -> None:
    chained = node_facts(linked((0, 1), (2, 1), (4, 5), of=7).annotation_path())

    assert chained.devices is not None
    assert sorted(chained.devices.layout.islands) == [0b0000111, 0b0110000]


def test_an_island_is_broken_where_nothing_smaller_has_room() -> None:
    read = node_facts(linked((0, 1), (1, 2), (0, 2), (3, 4), of=6).annotation_path())
    assert read.devices is not None
    layout, every = read.devices.layout, 0b111111

    # The single one does; a pair takes an island whole; a started island has room.
    assert not layout.outlook(every, 1).breaks
    assert not layout.outlook(every, 2).breaks
    assert layout.outlook(0b011111, 1).breaks
    assert not layout.outlook(0b001111, 1).breaks
    assert layout.outlook(0b000111, 2).breaks
    assert not layout.outlook(0b000111, 3).breaks
