"""What a leader of the past may still have on its way when a new one begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from extender.binding.handover import config_map
from extender.binding.janitor import Janitor
from extender.leading.inherited import HandedOver, handed_over
from extender.placement.facts import ClaimKey, PodKey
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import Reservation
from gpus.annotations import ASSIGNED, ASSIGNED_NODE
from gpus.model import Assignment, DeviceId, NodeName, PodUid
from tests.builders import PodBuilder, node, pod
from tests.extender.ledgers import Told, facts
from tests.extender.test_filter import chooser
from tests.fakes.binding_api import BindingApi

NODE, OTHER, GPU = NodeName("n"), NodeName("m"), DeviceId("GPU-n-0")
NAME = "gpudetour-devices-aaaaaaaaaaaaaaaaaaaa"
P = pod("p").wants(gpus=1).devices_from(NAME)
GIVEN = HandedOver(node=NODE, assignment=Assignment(epoch=3, containers={"main": (GPU,)}))


def left_behind(builder: PodBuilder) -> dict[str, object]:
    """Return the ConfigMap that a leader of the past made for a pod."""
    read = facts(builder)
    reservation = Reservation(
        uid=read.uid,
        namespace="default",
        name=builder.name,
        node=NODE,
        totals={},
        assignment=GIVEN.assignment,
        since=0.0,
    )
    return config_map(reservation, ClaimKey(f"default/{NAME}"))


@pytest.fixture
def api() -> Iterator[BindingApi]:
    with BindingApi(P) as api:
        api.config_maps[f"default/{NAME}"] = left_behind(P)
        yield api


@pytest.fixture
def told() -> Told:
    """A cluster with two nodes of one GPU, told of the pod and of what it was to get."""
    told = Told(node("n").with_gpus(1).annotation_path(), node("m").with_gpus(1).annotation_path())
    told.pod(P, listed=True)
    told.cluster.inherit(PodKey("default/p"), facts(P).uid, GIVEN)
    return told


def test_a_config_map_tells_pod_node_and_devices(api: BindingApi) -> None:
    assert handed_over(api.client()) == {facts(P).uid: GIVEN}


@pytest.mark.parametrize("spoilt", [ASSIGNED, ASSIGNED_NODE])
def test_a_config_map_that_tells_less_is_left_alone(api: BindingApi, spoilt: str) -> None:
    (stored,) = api.config_maps.values()
    del stored["metadata"]["annotations"][spoilt]

    assert handed_over(api.client()) == {}


def test_a_config_map_that_cannot_be_read_is_left_alone(api: BindingApi) -> None:
    (stored,) = api.config_maps.values()
    stored["metadata"]["annotations"][ASSIGNED] = "{"

    assert handed_over(api.client()) == {}


def test_devices_of_a_binding_that_may_still_come_are_given_to_nobody_else(told: Told) -> None:
    rival = told.bid(pod("q").wants(gpus=1).devices_from("gpudetour-devices-b"), "n")

    assert rival == Rejection((Reason.IN_USE,))


def test_the_pod_is_led_to_the_node_of_that_binding_and_gets_the_same_devices(told: Told) -> None:
    assert chooser(told).filter(facts(P), {NODE, OTHER}).nodes == [NODE]
    again = told.bid(P, "n", epoch=4)

    assert isinstance(again, Reservation)
    assert again.assignment == Assignment(epoch=4, containers={"main": (GPU,)})


def test_the_pod_is_not_bound_elsewhere_meanwhile(told: Told) -> None:
    decision = chooser(told).filter(facts(P), {OTHER})

    assert (decision.nodes, decision.busy) == ([], {OTHER: Reason.HOLDER_UNKNOWN.text})
    assert told.bid(P, "m") == Rejection((Reason.HOLDER_UNKNOWN,))


def test_the_binding_that_comes_settles_it(told: Told) -> None:
    told.pod(P.on("n").assigned({"main": [GPU]}, epoch=3))

    ledger = told.cluster.snapshot()
    assert not ledger.reservations
    assert not ledger.nodes[NODE].free


@pytest.mark.parametrize("bound", [True, False])
def test_a_pod_that_is_settled_already_inherits_nothing(bound: bool) -> None:
    told = Told(node("n").with_gpus(1).annotation_path())
    settled = P.on("m").assigned({"main": ["GPU-m-0"]}) if bound else P.phase("Failed")
    told.pod(settled, listed=True)
    told.cluster.inherit(PodKey("default/p"), facts(P).uid, GIVEN)
    told.cluster.inherit(PodKey("default/p"), PodUid("another"), GIVEN)
    told.cluster.inherit(PodKey("default/nobody"), facts(P).uid, GIVEN)

    assert not told.cluster.snapshot().reservations


def test_the_janitor_gives_back_what_never_came(api: BindingApi, told: Told) -> None:
    told.now = 100.0
    Janitor(api.client(), told.cluster, settled_after=90.0).look()

    assert told.cluster.snapshot().nodes[NODE].free
    assert isinstance(told.bid(P, "m"), Reservation)
