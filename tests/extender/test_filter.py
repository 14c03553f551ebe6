"""Filter and prioritize on a ledger that changes under them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from extender.filtering import Filter
from extender.patience import SHARE, Patience
from extender.placement.reasons import Reason
from extender.placement.shortlist import Choice
from extender.placement.strategies import binpack
from extender.waking.waiting import Waiting
from gpus.model import NodeName
from kube.reflector import EventKind
from tests.builders import NodeBuilder, PodBuilder, node, pod
from tests.extender.ledgers import Told, facts

A, B, C = NodeName("a"), NodeName("b"), NodeName("c")
NAMES = dict.fromkeys((A, B, C)).keys()
HOLD = 5.0


def one_gpu_each() -> list[NodeBuilder]:
    return [node(name).with_gpus(1).annotation_path() for name in NAMES]


def chooser(told: Told, *, limit: int = 16, hold: float = HOLD, patience: float = 0) -> Filter:
    choice = Choice(rank=binpack, limit=limit)
    return Filter(
        told.cluster,
        choice=choice,
        hold_seconds=hold,
        patience=Patience(patience),
        waiting=Waiting(),
    )


def asking(name: str, gpus: int = 1) -> PodBuilder:
    return pod(name).wants(gpus=gpus)


def test_the_next_pod_is_not_promised_the_gpu_that_is_held_for_this_one() -> None:
    told = Told(*one_gpu_each())
    choose = chooser(told)
    first = choose.filter(facts(asking("p")), NAMES)

    second = choose.filter(facts(asking("q")), NAMES)

    assert first.nodes[0] not in second.nodes
    third = choose.filter(facts(asking("r")), {first.nodes[0]})
    assert third.busy == {first.nodes[0]: Reason.IN_USE.text}


def test_a_pod_that_asks_again_is_not_in_its_own_way() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    choose = chooser(told)

    answers = [choose.filter(facts(asking("p")), {A}).nodes for _ in range(3)]

    assert answers == [["a"]] * 3
    assert len(told.cluster.snapshot().holds) == 1


def test_a_hold_ends_by_itself() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    choose = chooser(told)
    choose.filter(facts(asking("p")), {A})

    told.now = HOLD - 0.1
    assert choose.filter(facts(asking("q")), {A}).nodes == []
    told.now = HOLD
    assert choose.filter(facts(asking("q")), {A}).nodes == ["a"]


def test_a_hold_is_no_promise_and_does_not_stop_a_bind() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    chooser(told).filter(facts(asking("p")), {A})

    told.reserved(asking("q"), "a")

    assert chooser(told).filter(facts(asking("p")), {A}).busy == {"a": Reason.IN_USE.text}


def test_nothing_is_held_when_nothing_fits_or_holding_is_off() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    chooser(told).filter(facts(asking("p", 2)), {A})
    chooser(told, hold=0).filter(facts(asking("q")), {A})

    assert dict(told.cluster.snapshot().holds) == {}


def test_what_an_unanswered_bind_keeps_for_a_pod_does_not_stop_that_pod() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    told.cluster.sent(told.reserved(asking("p"), "a"))

    assert chooser(told).filter(facts(asking("p")), {A}).nodes == ["a"]
    assert chooser(told).filter(facts(asking("q")), {A}).nodes == []


def test_the_verdict_on_a_node_follows_its_changes() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    choose = chooser(told, hold=0)
    holder = asking("h").on("a").assigned({"main": ["GPU-a-0"]})
    fits = [choose.filter(facts(asking("p")), {A}).nodes]

    changes: tuple[Callable[[], None], ...] = (
        lambda: told.pod(holder),
        lambda: told.pod(holder.phase("Succeeded")),
        lambda: told.node(node("a").with_gpus(1).annotation_path().path("draining")),
        lambda: told.node(node("a").with_gpus(1).annotation_path()),
        lambda: told.node(node("a"), EventKind.DELETED),
    )
    for change in changes:
        change()
        fits.append(choose.filter(facts(asking("p")), {A}).nodes)

    assert fits == [[A], [], [A], [], [A], []]


def test_a_copy_of_a_pod_with_its_device_list_is_refused_everywhere() -> None:
    told = Told(*one_gpu_each())
    told.pod(
        asking("p").on("a").assigned({"main": ["GPU-a-0"]}).devices_from("gpudetour-devices-x")
    )
    copy = asking("copy").devices_from("gpudetour-devices-x").created("2026-06-01T00:00:00Z")

    found = chooser(told).filter(facts(copy), NAMES)

    assert found.nodes == []
    assert found.unfit == dict.fromkeys(NAMES, Reason.POD_UNUSABLE.text)


def test_a_pod_without_gpus_fits_everywhere() -> None:
    found = chooser(Told()).filter(facts(pod("p")), NAMES)

    assert (found.nodes, found.busy, found.unfit) == ([*NAMES], {}, {})
    assert chooser(Told()).prioritize(facts(pod("p")), NAMES) == dict.fromkeys(NAMES, 0)


def test_the_scheduler_is_led_to_the_node_that_is_held() -> None:
    told = Told(
        node("a").with_gpus(8).annotation_path(),
        node("b").with_gpus(4).annotation_path(),
        node("c").with_gpus(2).annotation_path(),
    )
    choose = chooser(told)
    (best, *_) = choose.filter(facts(asking("p", 2)), NAMES).nodes

    scores = choose.prioritize(facts(asking("p", 2)), NAMES)

    assert best == "c"
    assert scores[best] == 10
    assert all(score <= 4 for name, score in scores.items() if name != best)


def test_without_a_hold_the_best_node_leads() -> None:
    told = Told(*one_gpu_each(), node("d").with_gpus(4).annotation_path())

    scores = chooser(told).prioritize(facts(asking("p")), {*NAMES, NodeName("d"), NodeName("x")})

    assert scores == {"a": 10, "b": 4, "c": 4, "d": 0, "x": 0}


def test_equal_nodes_take_turns() -> None:
    told = Told(*one_gpu_each())
    choose = chooser(told, hold=0, limit=1)

    firsts = [choose.filter(facts(asking("p")), NAMES).nodes for _ in range(3)]

    assert sorted(firsts) == [["a"], ["b"], ["c"]]


def test_a_burst_of_filters_before_any_bind_promises_each_gpu_once() -> None:
    told = Told(*(node(name).with_gpus(8).annotation_path() for name in NAMES))
    choose = chooser(told)

    best = [choose.filter(facts(asking(f"p{i}")), NAMES).nodes[:1] for i in range(25)]

    assert [len(nodes) for nodes in best] == [1] * 24 + [0]
    assert all(best.count([name]) == 8 for name in NAMES)


def test_a_gpu_that_is_given_back_in_this_moment_is_found() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    holder = asking("h").on("a").assigned({"main": ["GPU-a-0"]})
    told.pod(holder)
    found: list[list[NodeName]] = []
    asked = threading.Thread(
        target=lambda: found.append(
            chooser(told, patience=10).filter(facts(asking("p")), {A}).nodes
        )
    )
    asked.start()

    told.pod(holder, EventKind.DELETED)
    asked.join(10)

    assert found == [["a"]]


def test_waiting_takes_a_small_part_of_the_time() -> None:
    now = [100.0]
    patience = Patience(0.1, clock=lambda: now[0])

    assert patience.left() == 0.1
    patience.spend(0.1)
    assert patience.left() == 0
    now[0] += 1
    assert patience.left() == pytest.approx(SHARE)
    patience.spend(0.2)
    assert patience.left() == 0
    now[0] += 100
    assert patience.left() == 0.1


def test_nobody_waits_for_what_no_pod_gives_back() -> None:
    told = Told(node("a").with_gpus(1).annotation_path())
    choose = chooser(told, patience=1000)

    assert choose.filter(facts(asking("p", 2)), {A}).nodes == []
    told.node(node("a").with_gpus(1).annotation_path().path("settling"))
    assert choose.filter(facts(asking("p")), {A}).nodes == []
