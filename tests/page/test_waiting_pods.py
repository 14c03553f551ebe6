"""Pods that wait are shown with what was last answered for them."""

from __future__ import annotations

from extender.filtering import Filter
from extender.page.answers import Answers, TellingFilter
from extender.page.queue import NOT_ASKED, NOT_GRANTABLE, OFFERED, SHOWN
from extender.patience import Patience
from extender.placement.facts import read_pod
from extender.placement.shortlist import Choice
from extender.placement.strategies import strategy
from extender.waking.waiting import Waiting
from gpus.model import NodeName
from gpus.wishes import Policy
from kube.reflector import EventKind
from tests.builders import node, pod
from tests.page.fleet import Fleet


def filter_of(fleet: Fleet, answers: Answers) -> Filter:
    placer = TellingFilter(
        fleet.cluster,
        choice=Choice(rank=strategy(Policy.BINPACK), limit=1),
        hold_seconds=0,
        patience=Patience(0),
        waiting=Waiting(),
    )
    placer.remember_in(answers)
    return placer


def test_what_filter_answered_is_what_is_shown() -> None:
    fleet = Fleet(node("a").with_gpus(2).annotation_path(), node("b").with_gpus(8).path("settling"))
    large = pod("large").wants(gpus=4)
    fits = pod("fits").wants(gpus=1)
    for each in (large, fits):
        fleet.pod(each)
    placer = filter_of(fleet, fleet.answers)
    for each in (large, fits):
        placer.filter(read_pod(each.build()), [NodeName("a"), NodeName("b")])

    shown = {waiter["pod"]: waiter for waiter in fleet.since()["queue"]["shown"]}

    assert shown["default/large"]["reasons"] == [
        ["GPU path is changing", 1],
        ["fewer GPUs than asked", 1],
    ]
    assert shown["default/large"]["asks"] == "4 x nvidia.com/gpu"
    assert (shown["default/fits"]["said"], shown["default/fits"]["node"]) == (OFFERED, "a")


def test_who_was_never_asked_for_and_who_cannot_be_helped() -> None:
    fleet = Fleet()
    fleet.pod(pod("quiet").wants(memory="8Gi").wishing(min_memory="40Gi", product="A,B"))
    fleet.pod(pod("wrong").wants(gpus=1).wishing(min_memory="lots"))

    quiet, wrong = fleet.since()["queue"]["shown"]

    assert quiet["said"] == NOT_ASKED
    assert quiet["asks"] == "8Gi of one GPU, product A or B, at least 40Gi each"
    assert "gpudetour.io/min-memory" in wrong["said"]
    assert dict(fleet.since()["queue"]["sums"]) == {NOT_ASKED: 1, NOT_GRANTABLE: 1}


def test_first_by_priority_then_by_age_and_the_rest_in_sum() -> None:
    fleet = Fleet()
    for number in range(SHOWN + 5):
        waiting = pod(f"pod-{number:03d}").wants(gpus=1)
        fleet.pod(waiting.created(f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}Z"))
        fleet.refuse(waiting, all_GPUs_in_use=3, no_GPU=1)
    fleet.pod(pod("urgent").wants(gpus=1).of_priority(9).created("2026-02-01T00:00:00Z"))

    queue = fleet.since()["queue"]

    assert queue["count"] == SHOWN + 6
    assert len(queue["shown"]) == SHOWN
    assert [waiter["pod"] for waiter in queue["shown"][:2]] == ["default/urgent", "default/pod-000"]
    assert queue["sums"] == [["all GPUs in use", SHOWN + 5], [NOT_ASKED, 1]]


def test_who_is_bound_ended_or_gone_waits_no_more() -> None:
    fleet = Fleet(node("a").with_gpus(2).annotation_path())
    one, two, three = (pod(name).wants(gpus=1) for name in ("one", "two", "three"))
    for each in (one, two, three):
        fleet.pod(each)
    version = fleet.since()["version"]
    fleet.pod(one.on("a").assigned({"main": ["GPU-a-0"]}))
    fleet.pod(two.deleting())
    fleet.pod(three, EventKind.DELETED)

    assert fleet.since(version)["queue"].get("count", 0) == 0
