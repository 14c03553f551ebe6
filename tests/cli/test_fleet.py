"""What the tables say for given nodes and pods."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from cli import render
from cli.columns import gpu_columns, node_columns, pod_columns
from cli.fleet import Seen
from cli.fleet import fleet as fleet_of
from cli.rows import Fleet
from gpus.annotations import encode_assigned
from gpus.model import Assignment, DeviceId, Health
from kube.objects import Lease, LeaseSpec, Node, Pod
from tests.builders import PodBuilder, gpu_id, node, pod


def pods_on(shown: Fleet) -> list[list[str]]:
    return [[holder.pod for holder in gpu.holders] for gpu in shown.gpus]


NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
NODES = node_columns(wide=False)
GPUS, PODS = gpu_columns(wide=True), pod_columns(wide=True, namespace=True)


def fleet(nodes: Sequence[Node], pods: Sequence[Pod], **beats: Lease) -> Fleet:
    return fleet_of(Seen(nodes=nodes, pods=pods, leases=beats, at=NOW))


def lines(rows: Sequence[Any], columns: Sequence[render.Column[Any]]) -> list[str]:
    written = io.StringIO()
    render.Table(written, columns).write(rows, now=NOW)
    return written.getvalue().splitlines()


def test_a_gpu_shows_the_pod_that_was_assigned_it() -> None:
    n1 = node("n1").with_gpus(2).annotation_path().build()
    holder = pod("a").wants(gpus=1).on("n1").assigned({"main": [gpu_id("n1", 1)]}).build()

    shown = fleet([n1], [holder])

    assert pods_on(shown) == [[], ["default/a"]]
    (row,) = shown.nodes
    assert (row.devices, row.free, row.held, row.unfit) == (2, 1, 1, 0)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_ended_holds_nothing(phase: str) -> None:
    n1 = node("n1").with_gpus(1).annotation_path().build()
    ended = pod("a").wants(gpus=1).on("n1").assigned({"main": [gpu_id("n1", 0)]}).phase(phase)

    assert pods_on(fleet([n1], [ended.build()])) == [[]]


def test_what_kubelet_gave_is_shown_by_pod_name_or_uid() -> None:
    holders = {str(gpu_id("n1", 0)): "uid-a", str(gpu_id("n1", 1)): "stranger"}
    n1 = node("n1").with_gpus(2).annotation_path().path("plugin").in_use(holders).build()
    known = pod("a").wants(gpus=1).on("n1").uid("uid-a").build()

    assert pods_on(fleet([n1], [known])) == [["default/a"], ["stranger"]]


def test_an_unhealthy_gpu_is_not_free() -> None:
    n1 = node("n1").with_gpus(2).health(Health.LOST, 0).annotation_path().build()

    (row,) = fleet([n1], []).nodes

    assert (row.free, row.unfit) == (1, 1)


def test_nothing_is_free_while_the_path_is_changing() -> None:
    n1 = node("n1").with_gpus(2).annotation_path().path("settling").build()

    assert [row.free for row in fleet([n1], []).nodes] == [0]


def test_an_unreadable_inventory_is_named_and_hides_no_other_node() -> None:
    broken = node("n1").with_gpus(1).annotated("gpudetour.io/inventory", '{"v":9}').build()
    sound = node("n2").with_gpus(1).annotation_path().build()

    first, second = fleet([sound, broken], []).nodes

    assert "version 9" in first.fault
    assert second.free == 1


def test_nodes_without_our_annotations_are_left_out() -> None:
    assert fleet([node("n1").build()], []).nodes == ()


def test_tables_are_not_cut_and_json_keeps_absent_facts_as_null() -> None:
    n1 = node("a-node-with-a-rather-long-name").with_gpus(1).annotation_path().build()
    rows = fleet([n1], []).gpus

    header, line = lines(rows, GPUS)

    assert header.split() == [column.header for column in GPUS]
    assert rows[0].device in line
    assert json.loads(json.dumps(render.plain(rows)))[0]["memory_bytes"] is None


def share(name: str, gpu: str, *, ask: str, got: int) -> PodBuilder:
    """A bound pod that holds a share, as the extender writes it."""
    assigned = Assignment(epoch=1, containers={"main": (DeviceId(gpu),)}, share_bytes=got)
    document = pod(name).annotated("gpudetour.io/assigned", encode_assigned(assigned)).raw()
    limits = {"gpudetour.io/gpu-memory": ask}
    document["spec"]["containers"][0]["resources"] = {"limits": limits, "requests": limits}
    return PodBuilder(document).on("n1")


def test_a_gpu_in_shares_shows_every_holder_and_each_pod_its_share() -> None:
    n1 = node("n1").with_gpus(2).annotation_path().build()
    gpu = gpu_id("n1", 0)
    a = share("a", gpu, ask="8Gi", got=8 << 30).annotated(
        "gpudetour.io/product", "*[hb]100*,\n*L4 :x:"
    )
    b = share("b", gpu, ask="512Mi", got=512 << 20)

    shown = fleet([n1], [b.build(), a.build()])

    (row,) = shown.nodes
    assert (row.devices, row.free, row.held, row.shared) == (2, 1, 1, 1)
    assert "default/a (8Gi), default/b (512Mi)" in lines(shown.gpus, GPUS)[1]
    _, first, second = lines(shown.pods, PODS)
    assert "   8Gi gpu-memory   " in first
    assert "product=*[hb]100*, *L4 :x:" in first
    assert "   512Mi gpu-memory   " in second
    told = json.loads(json.dumps(render.plain(shown.pods)))
    assert [pod["share_bytes"] for pod in told] == [8 << 30, 512 << 20]
    assert told[0]["wishes"] == {"product": "*[hb]100*,\n*L4 :x:"}
    assert json.loads(json.dumps(render.plain(shown.gpus)))[0]["holders"] == [
        {"pod": "default/a", "share_bytes": 8 << 30},
        {"pod": "default/b", "share_bytes": 512 << 20},
    ]


def test_a_pod_that_nothing_can_serve_says_why() -> None:
    odd = pod("a").wants(gpus=2).annotated("gpudetour.io/uuid", "GPU-a").build()

    (row,) = fleet([], [odd]).pods

    assert row.asks.startswith("cannot be granted: annotation gpudetour.io/uuid ")


def test_health_is_a_word_and_a_sign_and_wide_says_why() -> None:
    n1 = node("n1").with_gpus(3).health(Health.LOST, 0).health(Health.UNMONITORED, 1)
    n1 = n1.cards(0, health_reason="fell off the bus")

    _, lost, unmonitored, well = lines(fleet([n1.annotation_path().build()], []).gpus, GPUS)

    assert "   x lost" in lost
    assert lost.endswith("fell off the bus")
    assert "   ? unmonitored" in unmonitored
    assert "   ok   " in well


def test_an_agent_that_says_nothing_for_longer_than_it_promised_is_silent() -> None:
    n1, n2 = (node(name).with_gpus(1).annotation_path().build() for name in ("n1", "n2"))
    beats = {
        name: Lease(spec=LeaseSpec(lease_duration_seconds=40, renew_time=when))
        for name, when in (
            ("n1", "2026-01-01T00:59:21.000000Z"),
            ("n2", "2026-01-01T00:59:19.000000Z"),
        )
    }

    rows = fleet([n1, n2], [], **beats).nodes

    assert [row.silent for row in rows] == [False, True]
    assert "ok" in lines(rows, NODES)[1]
    assert "? its agent has been silent for 41s" in lines(rows, NODES)[2]


@pytest.mark.parametrize("when", [None, "", "yesterday", "2026-01-01", "2026-13-01T00:00:00Z"])
def test_a_heartbeat_that_cannot_be_read_is_unknown(when: str | None) -> None:
    n1 = node("n1").with_gpus(1).annotation_path().build()

    (row,) = fleet([n1], [], n1=Lease(spec=LeaseSpec(renew_time=when))).nodes

    assert (row.heartbeat, row.silent) == (None, False)


def test_of_metadata_alone_it_is_known_who_holds_what() -> None:
    """As `nodes` and `gpus` read pods that are bound and have not ended."""
    n1 = node("n1").with_gpus(2).annotation_path().build()
    whole = pod("a").wants(gpus=1).on("n1").assigned({"main": [gpu_id("n1", 1)]}).build()
    seen = Seen(nodes=[n1], pods=[Pod(metadata=whole.metadata)], leases={}, at=NOW, held_only=True)

    assert pods_on(fleet_of(seen)) == [[], ["default/a"]]
