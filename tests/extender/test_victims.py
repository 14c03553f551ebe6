"""Who must go for a more important pod: compared with trying every set of pods on every node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.placement.facts import PodKey
from extender.placement.victims import Room, helps, make_room
from gpus.model import Health, NodeName, PodUid
from tests.builders import NodeBuilder, PodBuilder, gpu_id, node, pod
from tests.extender.ledgers import ask, facts, ledger

GIB = 1 << 30


@dataclass(frozen=True)
class Holder:
    """A pod that holds GPUs of a node."""

    node: int
    gpus: int
    priority: int
    started: int
    leaving: bool


holders = st.lists(
    st.builds(
        Holder,
        node=st.integers(0, 1),
        gpus=st.integers(1, 3),
        priority=st.integers(-1, 3),
        started=st.integers(0, 3),
        leaving=st.sampled_from([False, False, False, True]),
    ),
    max_size=8,
)
#: Of each node.
cards = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(holders, cards, st.booleans(), st.integers(1, 5), st.integers(1, 4))
def test_the_cheapest_victims_are_chosen(
    drawn: list[Holder], cards: tuple[int, int], by_plugin: bool, wanted: int, priority: int
) -> None:
    kept = such_as_there_is_room_for(drawn, cards)
    nodes = [served(f"n{i}", count, by_plugin=by_plugin) for i, count in enumerate(cards)]

    room = room_for(pod("new").wants(gpus=wanted), priority, nodes, builders(kept))

    best = cheapest(kept, cards, wanted, priority)
    if best is None:
        assert room is None
    else:
        assert room is not None
        victims = [kept[int(victim.key.rpartition("-")[2])] for victim in room.victims]
        assert {f"n{victim.node}" for victim in victims} <= {room.node}
        assert cost(victims) == cost(best)
        assert not any(victim.leaving for victim in victims)


def such_as_there_is_room_for(drawn: list[Holder], cards: tuple[int, int]) -> list[Holder]:
    kept: list[Holder] = []
    for holder in drawn:
        if holder.gpus <= free(kept, cards, holder.node):
            kept.append(holder)
    return kept


def free(there: Sequence[Holder], cards: tuple[int, int], number: int) -> int:
    return cards[number] - sum(holder.gpus for holder in there if holder.node == number)


def builders(kept: list[Holder]) -> list[PodBuilder]:
    """The holders as pods; each has the lowest devices that nobody before it has."""
    built, taken = [], [0, 0]
    for number, holder in enumerate(kept):
        first = taken[holder.node]
        taken[holder.node] += holder.gpus
        name = f"n{holder.node}"
        devices = [gpu_id(name, first + i) for i in range(holder.gpus)]
        builder = (
            pod(f"holder-{number}")
            .wants(gpus=holder.gpus)
            .of_priority(holder.priority)
            .created(f"2026-01-01T00:00:0{holder.started}Z")
            .on(name)
            .assigned({"main": devices})
        )
        built.append(builder.deleting() if holder.leaving else builder)
    return built


def cheapest(
    kept: list[Holder], cards: tuple[int, int], wanted: int, priority: int
) -> list[Holder] | None:
    """Try everything."""
    enough = []
    for number in range(2):
        stay = [holder for holder in kept if holder.node == number and not holder.leaving]
        weaker = [holder for holder in stay if holder.priority < priority]
        for size in range(len(weaker) + 1):
            for victims in combinations(weaker, size):
                lost = sum(victim.gpus for victim in victims)
                if free(stay, cards, number) + lost >= wanted:
                    enough.append(list(victims))
    return min(enough, key=cost, default=None)


def cost(victims: Sequence[Holder]) -> tuple[object, ...]:
    """Highest priority, count, all priorities, GPUs lost, and the later they started the less."""
    return (
        max((victim.priority for victim in victims), default=-2),
        len(victims),
        sorted((victim.priority for victim in victims), reverse=True),
        sum(victim.gpus for victim in victims),
        [-started for started in sorted((v.started for v in victims), reverse=True)],
    )


def served(name: str, count: int, *, by_plugin: bool) -> NodeBuilder:
    built = node(name).with_gpus(count)
    return built.plugin_path() if by_plugin else built.annotation_path()


def room_for(
    new: PodBuilder,
    priority: int,
    nodes: Sequence[NodeBuilder],
    pods: Sequence[PodBuilder],
    *,
    spared: Sequence[str] = (),
) -> Room | None:
    return make_room(
        ask(new),
        priority=priority,
        names=[NodeName(built.name) for built in nodes],
        nodes=ledger(nodes, pods).nodes,
        spared={facts(p).uid for p in pods if p.name in spared},
    )


def names(room: Room | None) -> set[str] | None:
    """The victims' names; None where no room can be made."""
    return None if room is None else {name_of(victim.key) for victim in room.victims}


def name_of(key: PodKey) -> str:
    return key.partition("/")[2]


def holding(name: str, *cards: int, of: str = "n", priority: int = 0) -> PodBuilder:
    """A pod that holds these cards of a node, each of them alone."""
    return (
        pod(name)
        .wants(gpus=len(cards))
        .of_priority(priority)
        .on(of)
        .assigned({"main": [gpu_id(of, card) for card in cards]})
    )


def sharing(name: str, card: int, *, memory: int, priority: int = 0) -> PodBuilder:
    """A pod that has so many GiB of a card."""
    return (
        pod(name)
        .wants(memory=f"{memory}Gi")
        .of_priority(priority)
        .on("n")
        .assigned({"main": [gpu_id("n", card)]}, share=memory * GIB)
    )


def test_only_who_has_a_gpu_that_is_wished_for_goes() -> None:
    site = node("n").with_gpus(2).cards(1, product="NVIDIA L4").annotation_path()
    pods = [holding("of-h100", 0), holding("of-l4", 1)]

    new = pod("new").wants(gpus=1).wishing(product="*L4*")

    assert names(room_for(new, 1, [site], pods)) == {"of-l4"}


def test_gpus_that_must_be_connected_come_free_together() -> None:
    site = node("n").with_gpus(4, nvlink_pairs=True).annotation_path()
    pods = [
        holding("first", 0, priority=1),
        holding("second", 1, priority=5),
        holding("third", 2, priority=2),
        holding("fourth", 3, priority=3),
    ]

    new = pod("new").wants(gpus=2).wishing(topology="nvlink")

    assert names(room_for(new, 9, [site], pods)) == {"third", "fourth"}


def test_a_share_costs_as_few_shares_as_it_takes() -> None:
    site = node("n").with_gpus(2).cards(0, 1, memory_bytes=24 * GIB).annotation_path()
    pods = [
        holding("whole", 0, priority=5),
        sharing("small", 1, memory=4),
        sharing("medium", 1, memory=8),
        sharing("large", 1, memory=12),
    ]

    new = pod("new").wants(memory="10Gi")

    assert names(room_for(new, 9, [site], pods)) == {"large"}


def test_a_whole_gpu_costs_all_shares_of_one() -> None:
    site = node("n").with_gpus(2).cards(0, 1, memory_bytes=24 * GIB).annotation_path()
    pods = [
        sharing("alone", 0, memory=4, priority=1),
        sharing("one", 1, memory=8),
        sharing("other", 1, memory=8),
    ]

    assert names(room_for(pod("new").wants(gpus=1), 9, [site], pods)) == {"one", "other"}


def test_the_spared_stay_and_others_go() -> None:
    site = node("n").with_gpus(2).annotation_path()
    pods = [holding("low", 0), holding("middle", 1, priority=1)]
    new = pod("new").wants(gpus=1)

    assert names(room_for(new, 9, [site], pods, spared=["low"])) == {"middle"}
    assert room_for(new, 9, [site], pods, spared=["low", "middle"]) is None


def test_where_a_holder_is_unknown_nobody_goes() -> None:
    site = node("n").with_gpus(1).annotation_path()
    pods = [pod("unreadable").wants(gpus=1).on("n"), holding("clear", 0)]

    assert room_for(pod("new").wants(gpus=1), 9, [site], pods) is None


def test_unhealthy_gpus_are_freed_for_nobody() -> None:
    site = node("n").with_gpus(2).health(Health.FAULTY, 0).annotation_path()
    pods = [holding("on-the-sick", 0), holding("on-the-well", 1, priority=5)]

    assert names(room_for(pod("new").wants(gpus=1), 9, [site], pods)) == {"on-the-well"}


@pytest.mark.parametrize("size", [4, 8])
def test_a_great_many_holders_are_dealt_with(size: int) -> None:
    count = 64
    site = node("n").with_gpus(count).annotation_path()
    pods = [holding(f"holder-{i}", i, priority=i) for i in range(count)]

    room = room_for(pod("new").wants(gpus=size), 1000, [site], pods)

    assert names(room) == {f"holder-{i}" for i in range(size)}


def test_what_kubelet_is_seen_to_have_given_to_victims_comes_free() -> None:
    site = node("n").with_gpus(1).annotation_path().in_use({gpu_id("n", 0): "uid-holder"})
    state = ledger([site], [holding("holder", 0)]).nodes[NodeName("n")]
    new = ask(pod("new").wants(gpus=1))

    assert helps(new, state, [PodUid("uid-holder")])
    assert not helps(new, state, [])
