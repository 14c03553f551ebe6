"""Every kind of count on every kind of node: whether it fits, and the reason when it does not.

Wishes are in test_wishes, shares in test_shares.

| node \\ asked         | 1 GPU      | 2 of 2     | 3 of 2    | a MIG instance | no device list |
|----------------------|------------|------------|-----------|----------------|----------------|
| annotation path      | fits       | fits       | too few   | other kind     | pod unusable   |
| plugin path          | fits       | fits       | too few   | other kind     | fits           |
| partly used          | fits       | not enough | too few   | other kind     | (as above)     |
| all used             | in use     | in use     | too few   | other kind     |                |
| partly unhealthy     | fits       | unhealthy  | too few   | other kind     |                |
| holder unknown       | unknown    | unknown    | too few   | other kind     |                |
| settling, draining   | path is changing                                                       |
| no agent             | no GPU, or no inventory                                                |
"""

from __future__ import annotations

import pytest

from extender.placement.reasons import Reason, Rejection
from extender.placement.state import NodeState
from gpus import annotations as contract
from gpus.model import Health
from tests.builders import NodeBuilder, PodBuilder, node, pod
from tests.extender.ledgers import ask, reasons, state

ONE, TWO, THREE = (pod("new").wants(gpus=count) for count in (1, 2, 3))
MIG = pod("new").wants(mig_1g_5gb=1)
OLD = pod("new").wants(gpus=1).devices_from(None)

BARE = node("n").with_gpus(2)
ANNOTATION, PLUGIN = BARE.annotation_path(), BARE.plugin_path()
HOLDER = pod("holder").wants(gpus=1).assigned({"main": ["GPU-n-0"]})
BOTH = pod("holder").wants(gpus=2).assigned({"main": ["GPU-n-0", "GPU-n-1"]})
UNREADABLE = pod("holder").wants(gpus=1).annotated(contract.ASSIGNED, "{")

NODES: dict[str, NodeState] = {
    "annotation": state(ANNOTATION),
    "plugin": state(PLUGIN),
    "annotation, partly used": state(ANNOTATION, HOLDER),
    "plugin, partly used": state(PLUGIN, HOLDER),
    "annotation, all used": state(ANNOTATION, BOTH),
    "plugin, all used": state(PLUGIN, BOTH),
    "annotation, partly unhealthy": state(BARE.health(Health.LOST, 1).annotation_path()),
    "plugin, partly unhealthy": state(BARE.plugin_path(healthy=1)),
    "annotation, unhealthy and used": state(
        BARE.health(Health.FAULTY, 1).annotation_path(), HOLDER
    ),
    "holder unknown": state(ANNOTATION, UNREADABLE),
    "holder never assigned": state(ANNOTATION, pod("holder").wants(gpus=1)),
    "holder of a strange wish": state(PLUGIN, pod("holder").wants(gpus=5000)),
    "settling": state(ANNOTATION.path("settling")),
    "draining": state(ANNOTATION.path("draining")),
    "path of the future": state(ANNOTATION.path("teleport")),
    "garbage inventory": state(ANNOTATION.annotated(contract.INVENTORY, '{"v":1,')),
    "future inventory": state(ANNOTATION.annotated(contract.INVENTORY, '{"v":2}')),
    "garbage in-use": state(PLUGIN.annotated(contract.IN_USE, "[]")),
    "no inventory": state(BARE.path("annotation")),
    "no agent": state(BARE),
    "kubelet without agent": state(
        NodeBuilder("n", capacity=PLUGIN.capacity, allocatable=PLUGIN.allocatable)
    ),
    "negative allocatable": state(
        NodeBuilder(
            "n", annotations={contract.PATH: "plugin"}, allocatable={"nvidia.com/gpu": "-1"}
        )
    ),
    "stale zero": state(node("n").plugin_path(gpu=0)),
    "MIG only": state(node("n").with_mig(["1g.5gb"]).annotation_path()),
    "unseen": NodeState(),
}


@pytest.mark.parametrize(
    ("asked", "on", "expected"),
    [
        (ONE, "annotation", None),
        (ONE, "plugin", None),
        (TWO, "annotation", None),
        (TWO, "plugin", None),
        (THREE, "annotation", Reason.TOO_FEW),
        (THREE, "plugin", Reason.TOO_FEW),
        (MIG, "annotation", Reason.OTHER_KIND),
        (MIG, "plugin", Reason.OTHER_KIND),
        (OLD, "annotation", Reason.POD_UNUSABLE),
        (OLD, "plugin", None),
        (ONE, "annotation, partly used", None),
        (ONE, "plugin, partly used", None),
        (TWO, "annotation, partly used", Reason.NOT_ENOUGH),
        (TWO, "plugin, partly used", Reason.NOT_ENOUGH),
        (THREE, "plugin, partly used", Reason.TOO_FEW),
        (ONE, "annotation, all used", Reason.IN_USE),
        (ONE, "plugin, all used", Reason.IN_USE),
        (TWO, "annotation, all used", Reason.IN_USE),
        (ONE, "annotation, partly unhealthy", None),
        (ONE, "plugin, partly unhealthy", None),
        (TWO, "annotation, partly unhealthy", Reason.UNHEALTHY),
        (TWO, "plugin, partly unhealthy", Reason.UNHEALTHY),
        (ONE, "annotation, unhealthy and used", Reason.IN_USE),
        (ONE, "holder unknown", Reason.HOLDER_UNKNOWN),
        (THREE, "holder unknown", Reason.TOO_FEW),
        (MIG, "holder unknown", Reason.OTHER_KIND),
        (ONE, "holder never assigned", Reason.HOLDER_UNKNOWN),
        (ONE, "holder of a strange wish", Reason.HOLDER_UNKNOWN),
        (ONE, "settling", Reason.PATH_CHANGING),
        (ONE, "draining", Reason.PATH_CHANGING),
        (ONE, "path of the future", Reason.NO_INVENTORY),
        (ONE, "garbage inventory", Reason.NO_INVENTORY),
        (ONE, "future inventory", Reason.NO_INVENTORY),
        (ONE, "garbage in-use", Reason.NO_INVENTORY),
        (ONE, "no inventory", Reason.NO_INVENTORY),
        (ONE, "no agent", Reason.NO_GPU),
        (ONE, "kubelet without agent", Reason.NO_INVENTORY),
        (ONE, "negative allocatable", Reason.NO_INVENTORY),
        (ONE, "stale zero", Reason.NO_GPU),
        (ONE, "MIG only", Reason.OTHER_KIND),
        (MIG, "MIG only", None),
        (ONE, "unseen", Reason.NO_INVENTORY),
    ],
)
def test_a_demand_fits_a_node_or_is_told_why_not(
    asked: PodBuilder, on: str, expected: Reason | None
) -> None:
    found = reasons(asked, NODES[on])

    assert expected == (Rejection(found).main if found else None)


def test_every_lacking_resource_has_its_reason() -> None:
    both = pod("new").wants(gpus=9, mig_1g_5gb=1, mig_2g_10gb=1)
    mixed = state(node("n").with_gpus(1).with_mig(["1g.5gb"]).annotation_path())

    found = reasons(both, mixed)

    assert found == (Reason.TOO_FEW, Reason.OTHER_KIND)


def test_equal_demands_make_equal_asks() -> None:
    assert ask(pod("a").wants(gpus=1, mig_1g_5gb=2)) == ask(pod("b").wants(mig_1g_5gb=2, gpus=1))


def test_the_vocabulary_stays_within_what_an_event_can_hold() -> None:
    texts = {reason.text for reason in Reason}
    worst = ", ".join(f"5000 {text}" for text in texts)

    assert len(texts) <= 12
    assert len(f"0/60000 nodes are available: {worst}.") <= 1024
    assert not any(character.isdigit() for text in texts for character in text)
