"""Viewers get everything once and then only what changed, whatever they saw last."""

from __future__ import annotations

from kube.reflector import EventKind
from tests.builders import gpu_id, node, pod
from tests.page.fleet import Fleet, Object


def fleet_of(number: int) -> Fleet:
    return Fleet(*(node(f"node-{n}").with_gpus(2).annotation_path() for n in range(number)))


def names(message: Object) -> list[str]:
    return sorted(each["name"] for each in message["nodes"])


def test_first_everything_then_nothing_then_what_changed() -> None:
    fleet = fleet_of(3)

    first = fleet.since()
    same = fleet.since(first["version"])
    fleet.pod(pod("a").wants(gpus=1).on("node-1").assigned({"main": [gpu_id("node-1", 0)]}))
    later = fleet.since(same["version"])

    assert (first["full"], names(first)) == (True, ["node-0", "node-1", "node-2"])
    assert (same["full"], same["nodes"], same["version"]) == (False, [], first["version"])
    assert "queue" not in same
    assert (later["full"], names(later)) == (False, ["node-1"])
    assert later["version"] != first["version"]


def test_a_viewer_who_missed_several_versions_gets_all_that_changed_since() -> None:
    fleet = fleet_of(3)
    first = fleet.since()
    for number in (0, 2):
        name = f"node-{number}"
        fleet.pod(pod(name).wants(gpus=1).on(name).assigned({"main": [gpu_id(name, 0)]}))
        fleet.since()

    assert names(fleet.since(first["version"])) == ["node-0", "node-2"]


def test_nodes_that_are_gone_and_come_back() -> None:
    fleet = fleet_of(2)
    first = fleet.since()
    fleet.node(node("node-1").with_gpus(2).annotation_path(), EventKind.DELETED)
    without = fleet.since(first["version"])
    fleet.node(node("node-1").with_gpus(2).annotation_path())
    again = fleet.since(without["version"])

    assert (without["gone"], without["nodes"]) == (["node-1"], [])
    assert (again["gone"], names(again)) == ([], ["node-1"])
    assert names(fleet.since(first["version"])) == ["node-1"]


def test_versions_of_another_process_or_made_up_ones_get_everything() -> None:
    fleet, other = fleet_of(2), fleet_of(2)
    foreign = other.since()["version"]
    own = fleet.since()["version"].partition("-")[0]

    for version in ("", "-", foreign, f"{own}-99", f"{own}--1", f"{own}-²", f"{own}-" + "9" * 99):
        message = fleet.since(version)

        assert (message["full"], names(message)) == (True, ["node-0", "node-1"]), version


def test_who_was_away_while_very_many_nodes_went_gets_everything() -> None:
    fleet = fleet_of(2)
    first = fleet.since()
    passing = [node(f"passing-{number}").with_gpus(1).annotation_path() for number in range(1200)]
    for kind in (EventKind.ADDED, EventKind.DELETED):
        for each in passing:
            fleet.node(each, kind)
        fleet.since()
    last = fleet.since()

    message = fleet.since(first["version"])

    assert (message["full"], names(message)) == (True, ["node-0", "node-1"])
    assert fleet.since(last["version"])["full"] is False


def test_many_viewers_share_one_encoding_and_one_look() -> None:
    fleet = fleet_of(2)
    fleet.now = 1.0
    first = fleet.feed.since("")
    fleet.pod(pod("a").wants(gpus=1).on("node-1").assigned({"main": [gpu_id("node-1", 0)]}))

    # Within the same half second nobody looks again.
    fleet.now = 1.4
    assert fleet.feed.since("") is first
    fleet.now = 1.6
    second = fleet.feed.since("")
    assert second is not first
    assert fleet.feed.since("") is second


def test_a_replica_that_does_not_lead_says_so_and_calls_nothing_free() -> None:
    fleet = fleet_of(1)
    fleet.pod(pod("a").wants(gpus=1).on("node-0").assigned({"main": [gpu_id("node-0", 0)]}))
    fleet.pod(pod("b").wants(gpus=1))
    leading = fleet.since()
    fleet.why = "another replica leads, or nobody does yet"

    following = fleet.since(leading["version"])

    assert leading["why"] is None
    assert following["why"] == fleet.why
    (view,) = following["nodes"]
    assert [cell["state"] for cell in view["cells"]] == ["unknown", "unknown"]
    assert "free" not in view
    assert following["queue"] == {}
    fleet.why = None
    again = fleet.since(following["version"])
    assert [cell["state"] for cell in again["nodes"][0]["cells"]] == ["held", "free"]
    assert again["queue"]["count"] == 1


def test_what_only_the_notes_know_is_news_too() -> None:
    fleet = Fleet(node("node-0").with_gpus(1).annotation_path())
    first = fleet.since()
    fleet.node(node("node-0").with_gpus(1).annotation_path(), unschedulable=True)

    (view,) = fleet.since(first["version"])["nodes"]

    assert view["cordoned"] is True


def test_devices_are_found_by_their_name() -> None:
    fleet = Fleet(node("a").with_gpus(2).annotation_path())
    fleet.node(node("b").with_gpus(1).with_mig(["1g.10gb", "2g.20gb"]).annotation_path())

    assert fleet.feed.device(gpu_id("a", 1)) == b'{"node":"a","cell":1}'
    assert fleet.feed.device(gpu_id("b", 1)) == b'{"node":"b","cell":1}'
    assert fleet.feed.device(type(gpu_id("b", 1))("MIG-b-1-1")) == b'{"node":"b","cell":2}'
    assert fleet.feed.device(gpu_id("c", 0)) is None
