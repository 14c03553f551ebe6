"""What the tables say for given nodes and pods."""

from __future__ import annotations

import io
import json

import pytest

from cli import render
from cli.fleet import fleet
from gpus.model import Health
from tests.builders import gpu_id, node, pod


def test_a_gpu_shows_the_pod_that_was_assigned_it() -> None:
    n1 = node("n1").with_gpus(2).annotation_path().build()
    holder = pod("a").wants(gpus=1).on("n1").assigned({"main": [gpu_id("n1", 1)]}).build()

    shown = fleet([n1], [holder])

    assert [gpu.holder for gpu in shown.gpus] == [None, "default/a"]
    (row,) = shown.nodes
    assert (row.devices, row.free, row.held, row.unfit) == (2, 1, 1, 0)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_ended_holds_nothing(phase: str) -> None:
    n1 = node("n1").with_gpus(1).annotation_path().build()
    ended = pod("a").wants(gpus=1).on("n1").assigned({"main": [gpu_id("n1", 0)]}).phase(phase)

    assert [gpu.holder for gpu in fleet([n1], [ended.build()]).gpus] == [None]


def test_what_kubelet_gave_is_shown_by_pod_name_or_uid() -> None:
    holders = {str(gpu_id("n1", 0)): "uid-a", str(gpu_id("n1", 1)): "stranger"}
    n1 = node("n1").with_gpus(2).annotation_path().path("plugin").in_use(holders).build()
    known = pod("a").wants(gpus=1).on("n1").uid("uid-a").build()

    assert [gpu.holder for gpu in fleet([n1], [known]).gpus] == ["default/a", "stranger"]


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
    written = io.StringIO()

    render.table(written, rows, render.GPU_COLUMNS)

    header, line = written.getvalue().splitlines()
    assert header.split() == [name for name, _ in render.GPU_COLUMNS]
    assert rows[0].device in line
    assert json.loads(json.dumps(render.plain(rows)))[0]["holder"] is None
