"""What a node and its GPUs look like on the page, whatever state they are in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import gpus.annotations as contract
from extender.placement.facts import read_pod
from gpus.model import Health, NodeInventory, NodeName, Source, Withheld
from tests.builders import PodBuilder, gpu_id, node, pod
from tests.page.fleet import Fleet

ON = "node-1"


def holding(name: str, *indexes: int, share: int = 0) -> PodBuilder:
    """Return a pod on the node that was assigned some of its GPUs."""
    asks = pod(name).wants(memory=str(share)) if share else pod(name).wants(gpus=len(indexes))
    return asks.on(ON).assigned({"main": [gpu_id(ON, index) for index in indexes]}, share=share)


def test_free_and_held_gpus_and_by_whom() -> None:
    fleet = Fleet(node(ON).with_gpus(4).annotation_path())
    fleet.pod(holding("one", 1, 2))

    view = fleet.view(ON)

    assert [cell["state"] for cell in view["cells"]] == ["free", "held", "held", "free"]
    assert view["cells"][1]["holders"] == [{"pod": "default/one"}]
    assert (view["free"], view["total"], view["path"]) == (2, 4, "annotation")
    assert view["product"] == "NVIDIA H100"


def test_shares_add_up() -> None:
    cards = node(ON).with_gpus(2).cards(memory_bytes=80 << 30)
    fleet = Fleet(cards.annotation_path())
    fleet.pod(holding("one", 0, share=20 << 30))
    fleet.pod(holding("two", 0, share=40 << 30))

    first, second = fleet.view(ON)["cells"]

    assert (first["state"], first["used"], second["state"]) == ("shared", 75, "free")
    assert {(h["pod"], h["share"]) for h in first["holders"]} == {
        ("default/one", 20 << 30),
        ("default/two", 40 << 30),
    }


def test_sick_gpus_show_that_first_and_still_who_has_them() -> None:
    sick = node(ON).with_gpus(4).health(Health.FAULTY, 0).health(Health.LOST, 1)
    fleet = Fleet(sick.health(Health.UNMONITORED, 2).annotation_path())
    fleet.pod(holding("one", 0))

    cells = fleet.view(ON)["cells"]

    assert [cell["state"] for cell in cells] == ["faulty", "lost", "unmonitored", "free"]
    assert cells[0]["holders"] == [{"pod": "default/one"}]


def test_mig_instances_are_cells_and_a_card_given_before_the_cut_holds_all() -> None:
    cut = node(ON).with_gpus(1).with_mig(["3g.40gb", "1g.10gb+me"])
    fleet = Fleet(cut.annotation_path())
    fleet.pod(holding("old", 1))

    cells = fleet.view(ON)["cells"]

    assert [(c["gpu"], c.get("profile", ""), c["state"]) for c in cells] == [
        (0, "", "free"),
        (1, "3g.40gb", "held"),
        (1, "1g.10gb+me", "held"),
    ]


def test_what_is_promised_or_being_bound_is_told_apart() -> None:
    fleet = Fleet(node(ON).with_gpus(2).annotation_path())
    waiting = pod("next").wants(gpus=1)
    fleet.pod(waiting)
    fleet.cluster.hold(read_pod(waiting.build()), NodeName(ON), seconds=5)

    states = fleet.states(ON)

    assert sorted(states) == ["free", "kept"]


def test_on_the_plugin_path_kubelet_says_who_has_which() -> None:
    plugin = node(ON).with_gpus(4).inventory().plugin_path()
    fleet = Fleet(plugin.in_use({gpu_id(ON, 3): "uid-one", gpu_id(ON, 0): "uid-stranger"}))
    fleet.pod(pod("one").wants(gpus=1).on(ON).assigned({}))

    cells = fleet.view(ON)["cells"]

    assert [cell["state"] for cell in cells] == ["held", "free", "free", "held"]
    assert cells[0]["holders"] == [{"uid": "uid-stranger"}]
    assert cells[3]["holders"] == [{"pod": "default/one"}]


def test_while_kubelet_has_not_said_which_gpu_a_pod_got_none_is_called_free() -> None:
    fleet = Fleet(node(ON).with_gpus(2).inventory().plugin_path())
    fleet.pod(pod("one").wants(gpus=1).on(ON).assigned({}))

    view = fleet.view(ON)

    assert [cell["state"] for cell in view["cells"]] == ["unknown", "unknown"]
    assert view["free"] == 1


def test_time_sliced_gpus_are_held_in_turns() -> None:
    sliced = node(ON).with_gpus(2).inventory().plugin_path(gpu=8)
    turns = {f"{gpu_id(ON, 0)}::{turn}": f"uid-{turn}" for turn in (0, 3)}
    fleet = Fleet(sliced.in_use(turns))

    cells = fleet.view(ON)["cells"]

    assert [cell["state"] for cell in cells] == ["shared", "free"]
    assert [holder["turn"] for holder in cells[0]["holders"]] == [True, True]


def test_where_nothing_can_be_given_out_nothing_is_free_and_it_says_why() -> None:
    changing = node(ON).with_gpus(2).inventory().path("settling")
    fleet = Fleet(changing.annotated(contract.PATH_REASON, "kubelet remembers a plugin"))
    fleet.node(node("silent").with_gpus(0).plugin_path(gpu=8))
    fleet.node(replace(node("mute"), capacity={"nvidia.com/gpu": "8"}))

    view = fleet.view(ON)

    assert view["why"] == "GPU path is changing: kubelet remembers a plugin"
    assert [cell["state"] for cell in view["cells"]] == ["unknown", "unknown"]
    assert fleet.view("mute")["why"] == "GPU inventory missing or unreadable"
    # Kubelet's count is all that is known of a node whose agent tells no inventory.
    assert (fleet.view("silent")["free"], fleet.view("silent")["total"]) == (8, 8)


def test_a_pod_that_cannot_be_read_makes_its_node_unknown() -> None:
    fleet = Fleet(node(ON).with_gpus(2).annotation_path())
    fleet.pod(pod("strange").wants(gpus=1).on(ON).annotated(contract.ASSIGNED, "garbage"))

    view = fleet.view(ON)

    assert [cell["state"] for cell in view["cells"]] == ["unknown", "unknown"]
    assert view["why"] == "GPU holder unknown"


def test_nodes_without_gpus_are_left_out_and_cordoned_ones_say_so() -> None:
    fleet = Fleet(node("plain"))
    fleet.node(node(ON).with_gpus(1).annotation_path(), unschedulable=True)

    (view,) = fleet.since()["nodes"]

    assert (view["name"], view["cordoned"]) == (ON, True)


def test_details_have_what_the_ledger_does_not_keep() -> None:
    since = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    cards = node(ON).with_gpus(2, nvlink_pairs=True).health(Health.FAULTY, 1)
    cards = cards.cards(memory_bytes=80 << 30, compute_capability=(9, 0), bdf="0000:1b:00.0")
    cards = cards.cards(1, health_reason="Xid 79", health_since=since)
    inventory = NodeInventory(
        source=Source.NVML,
        driver="570.1",
        cuda="12.8",
        gpus=cards.gpus,
        withheld=(Withheld(reason="drives a screen", index=2, product="NVIDIA T400"),),
    )
    written = cards.annotated(contract.INVENTORY, contract.encode_inventory(inventory))
    fleet = Fleet(written.path("annotation"))

    details = fleet.details(ON)

    well, sick, withheld = details["devices"]
    assert (details["driver"], details["cuda"], details["source"]) == ("570.1", "12.8", "nvml")
    assert well["id"] == gpu_id(ON, 0)
    assert (well["memory"], well["compute"], well["bus"]) == (80 << 30, "9.0", "0000:1b:00.0")
    assert well["bonds"] == [{"peers": [1], "nvlinks": 4, "pcie": "single-switch"}]
    assert (sick["reason"], sick["since"]) == ("Xid 79", since.isoformat())
    assert withheld["reason"] == "drives a screen"
    assert [cell["state"] for cell in details["view"]["cells"]] == ["free", "faulty", "withheld"]
    assert details["view"]["total"] == 2


def test_long_texts_are_cut() -> None:
    cards = node(ON).with_gpus(1, "P" * 9000).health(Health.FAULTY, 0)
    fleet = Fleet(cards.cards(health_reason="R" * 9000).annotation_path())

    details = fleet.details(ON)

    assert len(details["view"]["product"]) == 300
    assert len(details["devices"][0]["reason"]) == 300
