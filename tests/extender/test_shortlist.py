"""Which nodes the scheduler is told, in which order, and what it hears of the others."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from extender.placement.fit import Fit
from extender.placement.patches import Patched
from extender.placement.reasons import Reason
from extender.placement.shortlist import Choice, Decision, Standing
from extender.placement.state import NodeState
from extender.placement.strategies import binpack, spread
from gpus.model import NodeName
from tests.builders import PodBuilder, node, pod
from tests.extender.ledgers import ask, ledger

PACK, SPREAD = Choice(rank=binpack, limit=0), Choice(rank=spread, limit=0)


def used(name: str, *, gpus: int, of: int) -> tuple[NodeState, NodeName]:
    builder = node(name).with_gpus(of).plugin_path()
    pods = [pod(f"{name}-{i}").wants(gpus=1).on(name) for i in range(gpus)]
    return ledger([builder], pods).nodes[NodeName(name)], NodeName(name)


def nodes(**usage: tuple[int, int]) -> Mapping[NodeName, NodeState]:
    found = (used(name, gpus=gpus, of=of) for name, (gpus, of) in usage.items())
    return {name: state for state, name in found}


def choose(
    builder: PodBuilder, among: Mapping[NodeName, NodeState], choice: Choice, *, turn: int = 0
) -> Decision:
    return standing(builder, among, choice).decide(among.keys(), own={}, turn=turn)


def standing(builder: PodBuilder, among: Mapping[NodeName, NodeState], choice: Choice) -> Standing:
    made = Standing(ask(builder), choice)
    made.follow(Patched(among))
    return made


def test_binpack_fills_what_is_used_most_and_breaks_up_vacant_nodes_last() -> None:
    among = nodes(vacant=(0, 2), half=(4, 8), full=(8, 8), nearly=(7, 8), exact=(0, 1))

    decision = choose(pod("p").wants(gpus=1), among, PACK)

    assert decision.nodes == ["nearly", "exact", "half", "vacant"]


def test_a_pod_for_several_gpus_takes_the_tightest_node() -> None:
    among = nodes(vacant=(0, 8), four=(4, 8), five=(3, 8))

    assert choose(pod("p").wants(gpus=4), among, PACK).nodes == ["four", "five", "vacant"]
    assert choose(pod("p").wants(gpus=8), among, PACK).nodes == ["vacant"]


def test_spread_takes_what_is_used_least() -> None:
    among = nodes(vacant=(0, 4), half=(2, 4), nearly=(3, 4))

    assert choose(pod("p").wants(gpus=1), among, SPREAD).nodes == ["vacant", "half", "nearly"]


def test_every_node_that_does_not_fit_has_one_reason() -> None:
    among = nodes(small=(0, 1), full=(4, 4))
    names = {*among, NodeName("unseen")}
    asked = standing(pod("p").wants(gpus=2), among, PACK).decide(names, own={}, turn=0)

    assert asked.nodes == []
    assert asked.unfit == {"small": Reason.TOO_FEW.text}
    assert asked.busy == {"full": Reason.IN_USE.text, "unseen": Reason.NO_INVENTORY.text}


@given(st.integers(1, 20), st.integers(0, 25), st.integers(0, 100))
def test_the_limit_holds_and_ties_take_turns(count: int, limit: int, turn: int) -> None:
    among = nodes(**{f"n{i}": (0, 2) for i in range(count)})
    choice = Choice(rank=binpack, limit=limit)

    decision = choose(pod("p").wants(gpus=1), among, choice, turn=turn)

    assert len(decision.nodes) == (min(limit, count) if limit else count)
    assert decision.nodes[0] == f"n{turn % count}"
    assert len(set(decision.nodes)) == len(decision.nodes)


def test_where_a_node_fits_nothing_is_said_of_the_others() -> None:
    decision = choose(pod("p").wants(gpus=1), nodes(a=(1, 2), full=(4, 4)), PACK)

    assert decision == Decision(nodes=[NodeName("a")], busy={}, unfit={})


def test_only_named_nodes_are_told() -> None:
    made = standing(pod("p").wants(gpus=1), nodes(a=(1, 2), b=(0, 2), full=(2, 2)), PACK)

    assert made.decide({NodeName("b")}, own={}, turn=7).nodes == ["b"]
    assert made.decide({NodeName("full")}, own={}, turn=7).busy == {"full": Reason.IN_USE.text}


def test_a_node_where_something_is_kept_for_the_pod_is_seen_as_the_pod_sees_it() -> None:
    among = nodes(a=(2, 2), b=(0, 2))
    made = standing(pod("p").wants(gpus=1), among, PACK)
    (kept,) = nodes(a=(1, 2)).values()

    assert made.decide(among.keys(), own={NodeName("a"): kept}, turn=0).nodes == ["a", "b"]
    (lost,) = nodes(b=(2, 2)).values()
    decision = made.decide(among.keys(), own={NodeName("b"): lost}, turn=0)
    assert decision.busy == dict.fromkeys(among, Reason.IN_USE.text)


def test_only_nodes_that_changed_are_looked_at_again() -> None:
    judged = []

    def counting(fit: Fit) -> int:
        judged.append(fit)
        return binpack(fit)

    made = Standing(ask(pod("p").wants(gpus=1)), Choice(rank=counting, limit=0))
    seen = Patched(nodes(a=(0, 2), b=(1, 2)))
    made.follow(seen)
    made.follow(seen)
    assert len(judged) == 2

    seen = seen.having(nodes(a=(2, 2)))
    made.follow(seen)

    assert made.decide({NodeName("a")}, own={}, turn=0).busy == {"a": Reason.IN_USE.text}
    assert len(judged) == 2


USAGES = [(0, 2), (1, 2), (2, 2), (0, 4), (3, 4), None]
NAMES = [NodeName(f"n{number}") for number in range(6)]
STATES = {
    (name, usage): used(name, gpus=usage[0], of=usage[1])[0] for name in NAMES for usage in USAGES
    if usage is not None
}  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(USAGES), st.booleans()), max_size=90
    ),
    st.sets(st.sampled_from(NAMES)),
    st.sampled_from([PACK, SPREAD, Choice(rank=binpack, limit=2)]),
)
def test_following_changes_ends_where_a_fresh_look_would(
    changes: list[tuple[NodeName, tuple[int, int] | None, bool]],
    named: set[NodeName],
    choice: Choice,
) -> None:
    wanted = pod("p").wants(gpus=1)
    followed, seen = Standing(ask(wanted), choice), Patched[NodeName, NodeState]()
    for name, usage, look in changes:
        seen = seen.having({name: None if usage is None else STATES[name, usage]})
        if look:
            followed.follow(seen)
    followed.follow(seen)

    found = followed.decide(named, own={}, turn=0)
    fresh = standing(wanted, dict(seen), choice).decide(named, own={}, turn=0)

    assert (found.busy, found.unfit) == (fresh.busy, fresh.unfit)
    # Of equal nodes, either may be named; their ranks must be the same.
    assert [rank(choice, seen[name]) for name in found.nodes] == [
        rank(choice, seen[name]) for name in fresh.nodes
    ]


def rank(choice: Choice, state: NodeState) -> object:
    return Standing(ask(pod("p").wants(gpus=1)), choice).verdict(state)
