"""Nodes that are called alike fit alike: only so may a verdict on one serve for another."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given, settings
from hypothesis import strategies as st

from extender.placement.changes import NodeSeen, PodSeen
from extender.placement.fit import fits
from extender.placement.layout import Layouts
from extender.placement.ledger import Ledger
from extender.placement.nodes import read_node
from extender.placement.state import NodeState
from gpus.model import Health, NodeName
from tests.builders import NodeBuilder, PodBuilder, gpu_id, node, pod
from tests.extender.ledgers import ask, facts

GIB = 1 << 30
ASKS = (
    pod("p").wants(gpus=1),
    pod("p").wants(gpus=2),
    pod("p").wants(gpus=1).devices_from(None),
    pod("p").wants(gpus=2).wishing(topology="nvlink"),
    pod("p").wants(gpus=2).wishing(topology="numa", exclude_uuid="GPU-n0-1"),
    pod("p").wants(gpus=1).wishing(uuid="GPU-n0-0,GPU-n1-1,GPU-n2-0"),
    pod("p").wants(gpus=1).wishing(min_memory="40Gi"),
    pod("p").wants(gpus=1).wishing(product="*H100*"),
    pod("p").wants(memory="20Gi"),
    pod("p").wants(memory="20Gi").wishing(exclude_uuid="GPU-n0-1"),
    pod("p").wants(mig_1g_5gb=1),
    pod("p").wants(gpus=1, mig_1g_5gb=1),
)


@st.composite
def clusters(draw: st.DrawFn) -> list[NodeState]:
    """A few nodes of a few kinds, each with a few holders."""
    ledger, layouts = Ledger(), Layouts()
    for number in range(draw(st.integers(2, 6))):
        builder, holders = draw(nodes(f"n{number}"))
        read = read_node(builder.build(), layouts=layouts)
        ledger = ledger.apply(NodeSeen(NodeName(builder.name), read))
        for holder in holders:
            ledger = ledger.apply(PodSeen(facts(holder.on(builder.name))))
    return list(ledger.nodes.values())


@st.composite
def nodes(draw: st.DrawFn, name: str) -> tuple[NodeBuilder, list[PodBuilder]]:
    builder = node(name).with_gpus(3, nvlink_pairs=draw(st.booleans()))
    builder = builder.cards(memory_bytes=draw(st.sampled_from((24, 80))) * GIB)
    builder = builder.health(Health.LOST, *draw(st.sets(st.integers(0, 2), max_size=1)), 9)
    if draw(st.booleans()):
        builder = builder.with_mig(["1g.5gb"])
    builder = draw(
        st.sampled_from(
            (
                builder.annotation_path(),
                builder.annotation_path(),
                builder.inventory().plugin_path(),
                builder.plugin_path(healthy=2),
                builder.annotation_path().path("settling"),
            )
        )
    )
    held = draw(st.sets(st.integers(0, 2), max_size=2))
    whole = draw(st.booleans())
    holders = []
    for index in held:
        holder, card = pod(f"{name}-{index}"), {"main": [gpu_id(name, index)]}
        if whole:
            holders.append(holder.wants(gpus=1).assigned(card))
        else:
            holders.append(holder.wants(memory="8Gi").assigned(card, share=8 * GIB))
    return builder, holders


@settings(max_examples=300)
@given(clusters(), st.sampled_from(ASKS))
def test_alike_nodes_fit_alike(states: list[NodeState], asked: PodBuilder) -> None:
    asks, found = ask(asked), dict[Hashable, object]()
    for state in states:
        likeness = asks.likeness(state)
        if likeness is not None:
            fit = fits(asks, state)
            assert found.setdefault(likeness, fit) == fit
