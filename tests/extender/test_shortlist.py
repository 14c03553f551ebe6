"""Which nodes the scheduler is told, in which order, and what it hears of the others."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from extender.placement.fit import Fit
from extender.placement.reasons import Reason
from extender.placement.shortlist import Choice, Decision, Memo, decide
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
    return decide(among, among, ask=ask(builder), choice=choice, memo={}, turn=turn)


def test_binpack_fills_what_is_used_most_and_breaks_up_vacant_nodes_last() -> None:
    among = nodes(vacant=(0, 2), half=(4, 8), full=(8, 8), nearly=(7, 8), exact=(0, 1))

    decision = choose(pod("p").wants(gpus=1), among, PACK)

    assert decision.nodes == ["nearly", "exact", "half", "vacant"]
    assert decision.busy == {"full": Reason.IN_USE.text}
    assert decision.fitting == 4


def test_a_pod_for_several_gpus_takes_the_tightest_node() -> None:
    among = nodes(vacant=(0, 8), four=(4, 8), five=(3, 8))

    assert choose(pod("p").wants(gpus=4), among, PACK).nodes == ["four", "five", "vacant"]
    assert choose(pod("p").wants(gpus=8), among, PACK).nodes == ["vacant"]


def test_spread_takes_what_is_used_least() -> None:
    among = nodes(vacant=(0, 4), half=(2, 4), nearly=(3, 4))

    assert choose(pod("p").wants(gpus=1), among, SPREAD).nodes == ["vacant", "half", "nearly"]


def test_every_node_that_does_not_fit_has_one_reason() -> None:
    among = {**nodes(small=(0, 1), full=(4, 4))}
    asked = decide(
        [*among, NodeName("unseen")],
        among,
        ask=ask(pod("p").wants(gpus=2)),
        choice=PACK,
        memo={},
        turn=0,
    )

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


def test_the_memo_is_used_for_nodes_that_did_not_change() -> None:
    among = dict(nodes(a=(0, 2), b=(1, 2)))
    asked, memo, judged = ask(pod("p").wants(gpus=1)), Memo(), []

    def counting(fit: Fit) -> int:
        judged.append(fit)
        return binpack(fit)

    choice = Choice(rank=counting, limit=0)
    first = decide(among, among, ask=asked, choice=choice, memo=memo, turn=0)
    again = decide(among, among, ask=asked, choice=choice, memo=memo, turn=0)
    assert (first, len(judged)) == (again, 2)

    among |= nodes(a=(2, 2))
    changed = decide(among, among, ask=asked, choice=choice, memo=memo, turn=0)

    assert changed.busy == {"a": Reason.IN_USE.text}
    assert len(judged) == 2


def test_a_name_that_comes_twice_is_answered_once() -> None:
    among = nodes(a=(0, 1))

    decision = decide(
        ["a", "a"],  # type: ignore[list-item]  # as they come from the wire
        among,
        ask=ask(pod("p").wants(gpus=1)),
        choice=PACK,
        memo={},
        turn=1,
    )

    assert decision.nodes == ["a"]
