"""Inventories of every kind, for property tests."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from gpus.model import (
    DeviceId,
    Gpu,
    Health,
    Link,
    MigInstance,
    NodeInventory,
    PcieLevel,
    Source,
    Withheld,
)

UUIDS = st.uuids().map(lambda u: DeviceId(f"GPU-{u}"))
MIG_UUIDS = st.uuids().map(lambda u: DeviceId(f"MIG-{u}")) | st.builds(
    lambda u, a, b: DeviceId(f"MIG-GPU-{u}/{a}/{b}"),
    st.uuids(),
    st.integers(0, 15),
    st.integers(0, 7),
)
BYTES = st.none() | st.integers(0, 2**48)
TEXT = st.text(max_size=40)
MAYBE_TEXT = st.none() | TEXT
MOMENTS = st.integers(0, 2**32).map(lambda second: datetime.fromtimestamp(second, UTC))
WITHHELD = st.builds(
    Withheld,
    reason=TEXT,
    index=st.none() | st.integers(0, 64),
    bdf=MAYBE_TEXT,
    uuid=st.none() | UUIDS,
    product=MAYBE_TEXT,
)


@st.composite
def inventories(draw: st.DrawFn) -> NodeInventory:
    uuids = draw(st.lists(UUIDS, max_size=6, unique=True))
    indices = draw(
        st.lists(st.integers(0, 64), min_size=len(uuids), max_size=len(uuids), unique=True)
    )
    migs = iter(draw(st.lists(MIG_UUIDS, max_size=8, unique=True)))

    def instances() -> tuple[MigInstance, ...]:
        taken = [m for m, _ in zip(migs, range(draw(st.integers(0, 3))), strict=False)]
        return tuple(
            MigInstance(uuid=m, profile=draw(TEXT), memory_bytes=draw(BYTES)) for m in taken
        )

    def links(of: DeviceId) -> tuple[Link, ...]:
        peers = draw(st.sets(st.sampled_from(uuids))) - {of}
        levels = st.none() | st.sampled_from(PcieLevel)
        return tuple(
            Link(peer=peer, nvlinks=draw(st.integers(0, 18)), pcie=draw(levels))
            for peer in sorted(peers)
        )

    gpus = tuple(
        Gpu(
            uuid=uuid,
            index=index,
            minor=draw(st.none() | st.integers(0, 255)),
            bdf=draw(MAYBE_TEXT),
            product=draw(MAYBE_TEXT),
            memory_bytes=draw(BYTES),
            compute_capability=draw(
                st.none() | st.tuples(st.integers(0, 999), st.integers(0, 999))
            ),
            architecture=draw(MAYBE_TEXT),
            numa_node=draw(st.none() | st.integers(0, 64)),
            links=links(uuid),
            health=draw(st.sampled_from(Health)),
            health_reason=draw(TEXT),
            health_since=draw(st.none() | MOMENTS),
            display=draw(st.none() | st.booleans()),
            pci_class=draw(st.none() | st.integers(0, 0xFFFFFF)),
            mig_capable=draw(st.none() | st.booleans()),
            mig_enabled=draw(st.booleans()),
            mig=instances(),
        )
        for uuid, index in zip(uuids, indices, strict=True)
    )
    return NodeInventory(
        source=draw(st.sampled_from(Source)),
        driver=draw(MAYBE_TEXT),
        cuda=draw(MAYBE_TEXT),
        gpus=gpus,
        withheld=tuple(draw(st.lists(WITHHELD, max_size=3))),
        trouble=draw(TEXT),
        boot=draw(MAYBE_TEXT),
        machine=draw(MAYBE_TEXT),
    )
