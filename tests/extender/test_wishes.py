"""Pods that want particular GPUs, on both paths: whether they fit, why not, and what they get.

On the plugin path kubelet chooses among all healthy devices, so each of them must be what is
wished for.
"""

from __future__ import annotations

import pytest

from extender.placement.assign import assign
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import NodeState
from gpus.model import Health, Link
from tests.builders import NodeBuilder, PodBuilder, gpu_id, node, pod
from tests.extender.ledgers import facts, reasons, state

GIB = 1 << 30


def like(
    builder: NodeBuilder, *indexes: int, product: str, memory: int, compute: tuple[int, int]
) -> NodeBuilder:
    return builder.cards(
        *indexes, product=product, memory_bytes=memory * GIB, compute_capability=compute
    )


def joined(builder: NodeBuilder, *islands: tuple[int, ...]) -> NodeBuilder:
    """Join cards by NVLink, all of each island with each other."""
    for island in islands:
        for index in island:
            links = tuple(
                Link(peer=gpu_id(builder.name, peer), nvlinks=4) for peer in island if peer != index
            )
            builder = builder.cards(index, links=links)
    return builder


#: Two A100, linked, on NUMA node 0; two L4 on NUMA node 1.
MIXED = like(node("n").with_gpus(4), 0, 1, product="NVIDIA A100", memory=80, compute=(8, 0))
MIXED = like(MIXED, 2, 3, product="NVIDIA L4", memory=24, compute=(8, 9))
MIXED = joined(MIXED, (0, 1))
#: Four A100 in two linked pairs, one on each NUMA node.
PAIRS = joined(
    like(node("n").with_gpus(4), product="NVIDIA A100", memory=80, compute=(8, 0)), (0, 1), (2, 3)
)
ONE, TWO, THREE = (pod("new").wants(gpus=count) for count in (1, 2, 3))
MIG = pod("new").wants(mig_1g_5gb=1)


def holder(*indexes: int) -> PodBuilder:
    devices = [f"GPU-n-{index}" for index in indexes]
    return pod(f"holder-{indexes}").wants(gpus=len(devices)).assigned({"main": devices})


NODES: dict[str, NodeState] = {
    "mixed": state(MIXED.annotation_path()),
    "mixed, A100 used": state(MIXED.annotation_path(), holder(0, 1)),
    "mixed, one A100 used": state(MIXED.annotation_path(), holder(0)),
    "mixed, one A100 sick": state(MIXED.health(Health.LOST, 0).annotation_path()),
    "mixed, plugin": state(MIXED.inventory().plugin_path()),
    "mixed, plugin, L4 sick": state(
        MIXED.health(Health.LOST, 2, 3).inventory().plugin_path(healthy=2)
    ),
    "pairs": state(PAIRS.annotation_path()),
    "pairs, one of each used": state(PAIRS.annotation_path(), holder(0, 2)),
    "pairs, one of each sick": state(PAIRS.health(Health.LOST, 0, 2).annotation_path()),
    "pairs, plugin": state(PAIRS.inventory().plugin_path()),
    "pairs, plugin, used": state(PAIRS.inventory().plugin_path(), holder(0, 1, 2)),
    "pair, plugin": state(
        joined(node("n").with_gpus(2), (0, 1)).cards(numa_node=0).inventory().plugin_path()
    ),
    "plugin without inventory": state(node("n").with_gpus(2).plugin_path()),
    "plugin with garbage": state(
        node("n").with_gpus(2).annotated("gpudetour.io/inventory", "{").plugin_path()
    ),
    "facts unknown": state(node("n").with_gpus(2).cards(product=None).annotation_path()),
    "MIG": state(node("n").with_mig(["1g.5gb"]).annotation_path()),
    "instances as whole GPUs": state(node("n").with_mig(["1g.5gb"]).inventory().plugin_path(gpu=1)),
    "no GPU": state(node("n")),
}


@pytest.mark.parametrize(
    ("asked", "on", "expected"),
    [
        (TWO.wishing(product="*a100*"), "mixed", None),
        (TWO.wishing(product="NVIDIA-A100"), "mixed", None),
        (THREE.wishing(product="*A100*"), "mixed", Reason.TOO_FEW),
        (THREE.wishing(product="*A100*,*L4"), "mixed", None),
        (ONE.wishing(product="*H100*"), "mixed", Reason.OTHER_PRODUCT),
        (ONE.wishing(product="*H100*", min_memory="1Ti"), "mixed", Reason.OTHER_PRODUCT),
        (ONE.wishing(product="*A100*"), "mixed, A100 used", Reason.IN_USE),
        (TWO.wishing(product="*A100*"), "mixed, one A100 used", Reason.NOT_ENOUGH),
        (TWO.wishing(product="*A100*"), "mixed, one A100 sick", Reason.UNHEALTHY),
        (ONE.wishing(product="*A100*"), "mixed, one A100 sick", None),
        (ONE.wishing(product="*A100*"), "mixed, plugin", Reason.OTHER_PRODUCT),
        (ONE.wishing(product="*A100*,*L4*"), "mixed, plugin", None),
        (ONE.wishing(product="*A100*"), "mixed, plugin, L4 sick", None),
        (THREE.wishing(product="*A100*"), "mixed, plugin, L4 sick", Reason.UNHEALTHY),
        (ONE.wishing(product="*A100*"), "pairs, plugin", None),
        (TWO.wishing(product="*A100*"), "pairs, plugin, used", Reason.NOT_ENOUGH),
        (ONE.wishing(product="*"), "facts unknown", Reason.OTHER_PRODUCT),
        (ONE.wishing(min_memory="80Gi"), "mixed", None),
        (ONE.wishing(min_memory="81Gi"), "mixed", Reason.OTHER_KIND),
        (ONE.wishing(min_memory="1Gi"), "facts unknown", Reason.OTHER_KIND),
        (ONE.wishing(min_memory="40Gi"), "mixed, plugin", Reason.OTHER_KIND),
        (ONE.wishing(min_memory="24Gi"), "mixed, plugin", None),
        (ONE.wishing(min_compute="8.9"), "mixed", None),
        (THREE.wishing(min_compute="8.9"), "mixed", Reason.TOO_FEW),
        (ONE.wishing(min_compute="9"), "mixed", Reason.OTHER_KIND),
        (ONE.wishing(uuid="GPU-n-1"), "mixed", None),
        (ONE.wishing(uuid="GPU-n-0"), "mixed, one A100 used", Reason.IN_USE),
        (ONE.wishing(uuid="GPU-elsewhere"), "mixed", Reason.OTHER_KIND),
        (ONE.wishing(uuid="GPU-n-1"), "mixed, plugin", Reason.OTHER_KIND),
        (ONE.wishing(uuid="GPU-n-0,GPU-n-1,GPU-n-2,GPU-n-3"), "mixed, plugin", None),
        (ONE.wishing(exclude_uuid="GPU-n-1"), "mixed", None),
        (ONE.wishing(exclude_uuid="GPU-n-1"), "mixed, plugin", Reason.OTHER_KIND),
        (ONE.wishing(exclude_uuid="GPU-elsewhere"), "mixed, plugin", None),
        (MIG.wishing(exclude_uuid="MIG-n-0-0"), "MIG", Reason.OTHER_KIND),
        (MIG.wishing(uuid="GPU-n-0,MIG-x"), "MIG", None),
        (ONE.wishing(min_memory="1Gi"), "MIG", Reason.OTHER_KIND),
        (ONE.wishing(min_memory="1Gi"), "no GPU", Reason.NO_GPU),
        (ONE.wishing(min_memory="1Gi"), "instances as whole GPUs", Reason.OTHER_KIND),
        (TWO.wishing(topology="nvlink"), "pairs", None),
        (THREE.wishing(topology="nvlink"), "pairs", Reason.NEVER_CONNECTED),
        (TWO.wishing(topology="nvlink"), "pairs, one of each used", Reason.NOT_CONNECTED),
        (TWO.wishing(topology="nvlink"), "pairs, one of each sick", Reason.NEVER_CONNECTED),
        (TWO.wishing(topology="numa"), "pairs, one of each used", Reason.NOT_CONNECTED),
        (ONE.wishing(topology="nvlink"), "pairs, one of each used", None),
        (TWO.wishing(topology="nvlink", product="*L4"), "mixed", Reason.NEVER_CONNECTED),
        (TWO.wishing(topology="numa", product="*L4"), "mixed", None),
        (TWO.wishing(topology="nvlink"), "pairs, plugin", Reason.NEVER_CONNECTED),
        (TWO.wishing(topology="numa"), "pairs, plugin", Reason.NEVER_CONNECTED),
        (ONE.wishing(topology="numa"), "pairs, plugin", None),
        (TWO.wishing(topology="nvlink"), "pair, plugin", None),
        (TWO.wishing(topology="numa"), "pair, plugin", None),
        (ONE.wishing(product="*"), "plugin without inventory", Reason.NO_INVENTORY),
        (ONE.wishing(product="*"), "plugin with garbage", Reason.NO_INVENTORY),
        (ONE, "plugin without inventory", None),
        (ONE, "plugin with garbage", None),
    ],
)
def test_a_wish_is_met_or_the_reason_is_told(
    asked: PodBuilder, on: str, expected: Reason | None
) -> None:
    found = reasons(asked, NODES[on])

    assert expected == (Rejection(found).main if found else None)


@pytest.mark.parametrize(
    ("asked", "on", "devices"),
    [
        (ONE, "mixed", ("GPU-n-2",)),
        (TWO, "mixed", ("GPU-n-2", "GPU-n-3")),
        (ONE.wishing(min_memory="40Gi"), "mixed", ("GPU-n-0",)),
        (ONE.wishing(exclude_uuid="GPU-n-2"), "mixed", ("GPU-n-3",)),
        (ONE.wishing(uuid="GPU-n-1,GPU-n-x"), "mixed", ("GPU-n-1",)),
        (ONE, "pairs, one of each used", ("GPU-n-1",)),
        (TWO.wishing(topology="nvlink"), "mixed", ("GPU-n-0", "GPU-n-1")),
        (TWO.wishing(topology="numa"), "mixed", ("GPU-n-2", "GPU-n-3")),
    ],
)
def test_of_the_gpus_that_will_do_the_least_capable_are_given(
    asked: PodBuilder, on: str, devices: tuple[str, ...]
) -> None:
    demand = facts(asked).demand
    assert demand is not None

    assert assign(demand, NODES[on], listed=True) == {"main": devices}


def test_what_was_given_earlier_is_kept_only_while_it_is_connected_as_wished() -> None:
    linked = facts(TWO.wishing(topology="nvlink")).demand
    assert linked is not None
    good = {"main": (gpu_id("n", 3), gpu_id("n", 2))}
    bad = {"main": (gpu_id("n", 1), gpu_id("n", 2))}

    assert assign(linked, NODES["pairs"], listed=True, earlier=good) == good
    other = assign(linked, NODES["pairs"], listed=True, earlier=bad)
    assert other == {"main": ("GPU-n-0", "GPU-n-1")}


def test_several_resources_are_wished_for_at_once() -> None:
    cut = like(node("n").with_gpus(2), product="NVIDIA A100", memory=80, compute=(8, 0))
    mixed = state(cut.with_mig(["1g.5gb", "1g.5gb"]).annotation_path())
    both = pod("new").wants(gpus=1, mig_1g_5gb=1)

    assert reasons(both, mixed) == ()
    assert reasons(both.wishing(product="*A100*"), mixed) == (Reason.OTHER_PRODUCT,)
    assert reasons(both.wishing(exclude_uuid="GPU-n-2"), mixed) == (Reason.OTHER_KIND,)
