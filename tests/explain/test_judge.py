"""What the judge makes of facts: the order of causes, what ends them, and facts that contradict."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from explain.causes import Cause
from explain.findings import State
from explain.judge import explain
from gpus.model import Health, Path
from kube.objects import NodeSpec, Taint
from tests.builders import NodeBuilder, PodBuilder, gpu_id, node, pod
from tests.explain.making import OLD, causes, facts, free, lease, leases

GIB = 1 << 30


def full(name: str, product: str = "NVIDIA H100") -> tuple[NodeBuilder, PodBuilder]:
    cards = node(name).with_gpus(2, product).annotation_path()
    ids = [gpu_id(name, 0), gpu_id(name, 1)]
    return cards, pod(f"on-{name}").wants(gpus=2).on(name).assigned({"main": ids})


@pytest.mark.parametrize(
    ("nodes", "wishes", "cause"),
    [
        ([], {}, Cause.NO_GPU_NODES),
        ([node("a")], {}, Cause.NO_GPU_NODES),
        ([node("a").with_gpus(1, "NVIDIA L4").annotation_path()], {"product": "*H100*"},
         Cause.PRODUCT),
        ([node("a").with_gpus(1).cards(memory_bytes=GIB).annotation_path()],
         {"min_memory": "2Gi"}, Cause.MEMORY),
        ([node("a").with_gpus(1).cards(compute_capability=(7, 0)).annotation_path()],
         {"min_compute": "8.0"}, Cause.COMPUTE),
        ([free("a")], {"uuid": "GPU-elsewhere"}, Cause.UUID),
        ([node("a").with_gpus(1).health(Health.LOST, 0).annotation_path()], {}, Cause.UNHEALTHY),
        ([node("a").with_gpus(1).inventory().path(Path.SETTLING)], {}, Cause.SETTLING),
        ([node("a").with_gpus(1).inventory().path("nonsense")], {}, Cause.AGENT_MISSING),
        ([node("a").plugin_path(gpu=0)], {}, Cause.STALE_ZERO),
        ([free("a")], {}, Cause.FITS),
    ],
)  # fmt: skip
def test_one_node_one_cause(nodes: list[NodeBuilder], wishes: dict[str, str], cause: Cause) -> None:
    told = explain(facts(pod("p").wants(gpus=1).wishing(**wishes), *nodes))

    assert causes(told)[0] is cause
    assert told.state is State.WAITS


def test_of_nodes_those_come_first_that_are_nearest_to_taking_the_pod() -> None:
    used, holder = full("used")
    nodes = [node("none"), node("old").with_gpus(2, "NVIDIA T4").annotation_path(), used]
    sick = node("sick").with_gpus(1).health(Health.FAULTY, 0).annotation_path()
    settling = node("settling").with_gpus(1).inventory().path(Path.SETTLING)

    asked = pod("p").wants(gpus=1).wishing(product="*H100*")
    told = explain(facts(asked, *nodes, sick, settling, holders=[holder]))

    assert causes(told) == [
        Cause.IN_USE, Cause.SETTLING, Cause.UNHEALTHY, Cause.PRODUCT, Cause.NO_GPU,
    ]  # fmt: skip


def test_the_order_of_nodes_and_pods_changes_nothing() -> None:
    pairs = [full(f"n{i}") for i in range(4)] + [full("t4", "NVIDIA T4")]
    asked = pod("p").wants(gpus=1).wishing(product="*H100*")
    nodes, holders = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    forward = explain(facts(asked, *nodes, holders=holders))
    backward = explain(facts(asked, *reversed(nodes), holders=list(reversed(holders))))

    assert forward == backward


def test_only_pods_that_would_make_room_alone_are_named() -> None:
    cards = node("n").with_gpus(2).annotation_path()
    holders = [
        pod(f"h{i}").wants(gpus=1).on("n").assigned({"main": [gpu_id("n", i)]}) for i in range(2)
    ]

    one = explain(facts(pod("p").wants(gpus=1), cards, holders=holders))
    two = explain(facts(pod("p").wants(gpus=2), cards, holders=holders))

    assert one.findings[0].holders == ("default/h0 on n", "default/h1 on n")
    assert two.findings[0].holders == ()
    assert two.findings[0].ends == ("when several pods of one node have ended",)


def test_a_pod_that_is_ending_already_is_named_as_such() -> None:
    cards, holder = full("n")

    told = explain(facts(pod("p").wants(gpus=1), cards, holders=[holder.deleting()]))

    assert "ending already: default/on-n" in told.findings[0].ends


def test_asking_for_fewer_is_offered_where_it_would_help() -> None:
    cards = node("n").with_gpus(4).annotation_path()
    holder = pod("h").wants(gpus=1).on("n").assigned({"main": [gpu_id("n", 0)]})

    told = explain(facts(pod("p").wants(gpus=4), cards, holders=[holder]))

    assert causes(told) == [Cause.NOT_ENOUGH]
    assert "asking for 3 instead of 4 it would fit on n now" in told.findings[0].ends


def test_a_silent_agent_explains_what_its_node_says() -> None:
    settling = node("n").with_gpus(1).inventory().path(Path.SETTLING)
    known = leases(lease("gpudetour-extender"), lease("n", OLD))

    assert causes(explain(facts(pod("p").wants(gpus=1), settling, leases=known))) == [
        Cause.AGENT_SILENT
    ]


def test_a_node_on_which_labels_promise_a_card_lacks_its_agent() -> None:
    told_of = node("n").build()
    labels = {"nvidia.com/gpu.present": "true"}
    labelled = replace(told_of, metadata=replace(told_of.metadata, labels=labels))

    told = explain(facts(pod("p").wants(gpus=1), nodes=(labelled,)))

    assert causes(told) == [Cause.AGENT_MISSING]


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"leases": {}}, Cause.EXTENDER_DOWN),
        ({"leases": leases(lease("gpudetour-extender", OLD))}, Cause.EXTENDER_DOWN),
        ({"leases": leases(lease("gpudetour-extender", holder=""))}, Cause.EXTENDER_DOWN),
        ({"leases": leases(lease("gpudetour-extender", "soon"))}, Cause.EXTENDER_DOWN),
        ({"said": ""}, Cause.SCHEDULER_SILENT),
        ({"said": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}, Cause.NOT_CONFIGURED),
        ({"said": 'Post "https://x/filter": EOF'}, Cause.EXTENDER_DOWN),
        ({"said": 'Post "https://x/filter": x509: expired'}, Cause.CERTIFICATE),
        ({"runtime_classes": frozenset()}, Cause.FITS),
        ({"spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}}, Cause.GATED),
        ({"leases": None, "fence": None, "runtime_classes": None, "events": None}, Cause.FITS),
    ],
)
def test_who_places_pods_comes_before_the_nodes(change: dict[str, Any], first: Cause) -> None:
    told = explain(facts(pod("p").wants(gpus=1), free("n"), **change))

    assert causes(told)[0] is first
    assert told.findings[-1].nodes == ("n",)


def test_a_pod_that_went_past_the_webhook_is_told_before_all_else() -> None:
    asked = pod("p").wants(gpus=1).devices_from(None)

    assert causes(explain(facts(asked, free("n"), leases={})))[:2] == [
        Cause.UNUSABLE,
        Cause.EXTENDER_DOWN,
    ]


def test_two_pods_with_one_device_list() -> None:
    asked = pod("p").wants(gpus=1).devices_from("gpudetour-devices-" + "a" * 20)
    holder = pod("h").wants(gpus=1).on("n").devices_from("gpudetour-devices-" + "a" * 20)

    told = explain(facts(asked, free("n"), holders=[holder]))

    assert causes(told)[0] is Cause.UNUSABLE
    assert "default/h" in told.findings[0].saw


def test_nodes_that_may_not_be_read_are_counted_by_the_scheduler() -> None:
    said = "0/9 nodes are available: 3 Insufficient cpu, 6 all GPUs in use. preemption: none."

    told = explain(facts(pod("p").wants(gpus=1), said=said, nodes=None))

    assert [(found.cause, found.count) for found in told.findings] == [
        (Cause.RESOURCES, 3),
        (Cause.IN_USE, 6),
    ]


def test_a_request_that_cannot_be_granted_says_every_fault() -> None:
    asked = pod("p").wants(gpus=1).wishing(min_memory="40", topology="ring")

    told = explain(facts(asked, free("n")))

    assert causes(told)[0] is Cause.IMPOSSIBLE
    assert "40Gi" in told.findings[0].saw
    assert "nvlink or numa" in told.findings[0].saw


def test_a_pod_without_gpus_is_told_what_the_scheduler_says_and_nothing_of_the_extender() -> None:
    said = "0/9 nodes are available: 9 Insufficient cpu. preemption: none."

    told = explain(facts(pod("p"), free("n"), said=said, leases={}))

    assert causes(told) == [Cause.RESOURCES]
    assert told.asks == "no GPU"


@pytest.mark.parametrize(
    ("asked", "saw"),
    [
        ({"cpu": "4"}, "asks for 4 cpu, and the whole node has 2"),
        ({"memory": "8Gi"}, "asks for 8Gi memory, and the whole node has 4Gi"),
        ({"example.org/nic": "1"}, "asks for 1 example.org/nic, and the whole node has 0"),
    ],
)
def test_a_node_that_is_too_small_in_all_is_told_with_its_size(
    asked: dict[str, str], saw: str
) -> None:
    small = free("n").build()
    able = {"cpu": "2000m", "memory": "4Gi"}
    small = replace(small, status=replace(small.status, allocatable=able))
    containers = [{"name": "main", "resources": {"requests": asked}}]

    told = explain(facts(pod("p").wants(gpus=1), nodes=(small,), spec={"containers": containers}))

    assert [(found.cause, found.saw) for found in told.findings] == [(Cause.RESOURCES, saw)]


@pytest.mark.parametrize(
    ("unschedulable", "taint", "cause"),
    [
        (True, None, Cause.CORDONED),
        (False, "node.kubernetes.io/not-ready", Cause.NOT_READY),
        (False, "team", Cause.TAINT),
    ],
)
def test_nodes_that_take_no_pods_at_all(
    unschedulable: bool, taint: str | None, cause: Cause
) -> None:
    closed = free("n").build()
    taints = [Taint(key=taint, effect="NoSchedule")] if taint else None
    closed = replace(closed, spec=NodeSpec(unschedulable=unschedulable, taints=taints))

    told = explain(facts(pod("p").wants(gpus=1), nodes=(closed,)))

    assert causes(told) == [cause]
