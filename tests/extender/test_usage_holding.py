"""How many GPUs each namespace holds on given nodes."""

from __future__ import annotations

from typing import Any

import pytest

from extender.usage.holding import Holding, Holdings, holding_on
from tests.builders import NodeBuilder, PodBuilder, gpu_id, node, pod
from tests.extender.ledgers import ledger, state

GIB = 1 << 30


def held(node: NodeBuilder, *pods: PodBuilder) -> dict[str, float]:
    return dict(holding_on(state(node, *pods)).held)


def test_whole_gpus_count_as_one_each_on_both_paths() -> None:
    two = pod("a", "team").wants(gpus=2)

    on_annotation = two.assigned({"main": [gpu_id("n", 0), gpu_id("n", 1)]})
    assert held(node("n").with_gpus(4).annotation_path(), on_annotation) == {"team": 2}
    assert held(node("n").with_gpus(4).inventory().plugin_path(), two) == {"team": 2}


def test_a_share_counts_by_its_part_of_the_memory() -> None:
    cards = node("n").with_gpus(2).cards(0, memory_bytes=16 * GIB).cards(1, memory_bytes=64 * GIB)
    share = pod("a", "team").wants(memory="16Gi")

    small, large = (
        share.assigned({"main": [gpu_id("n", index)]}, share=16 * GIB) for index in (0, 1)
    )
    assert held(cards.annotation_path(), small) == {"team": pytest.approx(1)}
    assert held(cards.annotation_path(), large) == {"team": pytest.approx(0.25)}


@pytest.mark.parametrize(
    ("product", "profile", "part"),
    [
        ("NVIDIA A100-SXM4-40GB", "mig_1g_5gb", 1 / 7),
        ("NVIDIA H100 80GB HBM3", "mig_3g_40gb", 3 / 7),
        ("NVIDIA A30", "mig_2g_12gb", 2 / 4),
        ("NVIDIA A100-SXM4-40GB", "mig_7g_40gb", 1),
    ],
)
def test_an_instance_counts_by_its_slices(product: str, profile: str, part: float) -> None:
    name = profile.removeprefix("mig_").replace("_", ".")
    cut = node("n").with_mig([name]).cards(product=product).annotation_path()
    resource: dict[str, Any] = {profile: 1}
    asking = pod("a", "team").wants(**resource).assigned({"main": ["MIG-n-0-0"]})

    assert held(cut, asking) == {"team": pytest.approx(part)}


def test_of_a_gpu_that_a_plugin_slices_by_time_each_replica_is_a_part() -> None:
    sliced = node("n").with_gpus(2).inventory().plugin_path(gpu=8)

    assert held(sliced, pod("a", "team").wants(gpus=2)) == {"team": pytest.approx(0.5)}


def test_pods_that_ended_or_wait_hold_nothing() -> None:
    n = node("n").with_gpus(2).annotation_path()
    ended = pod("a").wants(gpus=1).on("n").assigned({"main": [gpu_id("n", 0)]}).phase("Failed")
    waiting = pod("b").wants(gpus=1)

    assert Holdings().of(ledger([n], [ended, waiting])) == Holding(held={}, installed=2)


def test_a_cluster_is_the_sum_of_its_nodes_also_when_one_changes() -> None:
    nodes = [node(name).with_gpus(2).annotation_path() for name in ("a", "b")]
    holdings, pods = (
        Holdings(),
        [
            pod(f"on-{each.name}", "team")
            .wants(gpus=1)
            .on(each.name)
            .assigned({"main": [gpu_id(each.name, 0)]})
            for each in nodes
        ],
    )

    assert holdings.of(ledger(nodes, pods[:1])) == Holding(held={"team": 1}, installed=4)
    assert holdings.of(ledger(nodes, pods)) == Holding(held={"team": 2}, installed=4)
    assert holdings.of(ledger(nodes[1:], pods[1:])) == Holding(held={"team": 1}, installed=2)
