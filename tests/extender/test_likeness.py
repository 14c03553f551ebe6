"""Nodes that are called alike fit alike: only so may a verdict on one serve for another."""

from __future__ import annotations

from collections.abc import Callable, Hashable

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


Kind = Callable[[str], NodeBuilder]


@st.composite
def clusters(draw: st.DrawFn) -> list[NodeState]:
    """Nodes of one kind or two, each with a few holders."""
    ledger, layouts = Ledger(), Layouts()
    of = st.sampled_from(draw(st.lists(kinds(), min_size=1, max_size=2)))
    for number in range(draw(st.integers(4, 8))):
        builder = draw(of)(f"n{number}")
        read = read_node(builder.build(), layouts=layouts)
        ledger = ledger.apply(NodeSeen(NodeName(builder.name), read))
        for holder in draw(holders(builder.name)):
            ledger = ledger.apply(PodSeen(facts(holder.on(builder.name))))
    return list(ledger.nodes.values())


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    linked, cut = draw(st.booleans()), draw(st.booleans())
    memory = draw(st.sampled_from((24, 80))) * GIB
    sick = draw(st.sampled_from(((9,), (0,))))
    paths: tuple[Callable[[NodeBuilder], NodeBuilder], ...] = (
        lambda builder: builder.annotation_path(),
        lambda builder: builder.annotation_path(),
        lambda builder: builder.inventory().plugin_path(),
        lambda builder: builder.plugin_path(healthy=2),
        lambda builder: builder.annotation_path().path("settling"),
    )
    path = draw(st.sampled_from(paths))

    def build(name: str) -> NodeBuilder:
        builder = node(name).with_gpus(3, nvlink_pairs=linked).cards(memory_bytes=memory)
        builder = builder.health(Health.LOST, *sick)
        return path(builder.with_mig(["1g.5gb"]) if cut else builder)

    return build


@st.composite
def holders(draw: st.DrawFn, name: str) -> list[PodBuilder]:
    found = []
    for index in draw(st.sets(st.integers(0, 2), max_size=1)):
        holder, card = pod(f"{name}-{index}"), {"main": [gpu_id(name, index)]}
        size = draw(st.sampled_from((0, 2, 8)))
        if size:
            found.append(holder.wants(memory=f"{size}Gi").assigned(card, share=size * GIB))
        else:
            found.append(holder.wants(gpus=1).assigned(card))
    return found


@settings(max_examples=300)
@given(clusters(), st.sampled_from(ASKS))
def test_alike_nodes_fit_alike(states: list[NodeState], asked: PodBuilder) -> None:
    asks, found = ask(asked), dict[Hashable, object]()
    for state in states:
        likeness = asks.likeness(state)
        if likeness is not None:
            fit = fits(asks, state)
            assert found.setdefault(likeness, fit) == fit
