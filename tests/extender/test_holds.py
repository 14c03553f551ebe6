"""What filter holds for a pod: exactly the devices that it would get, and for nobody else to hold.

A hold is no promise: bind takes what is held for others when nothing else is left.
"""

from __future__ import annotations

from extender.placement.reasons import Reason, Rejection
from extender.placement.state import Reservation
from gpus.model import NodeName
from kube.reflector import EventKind
from tests.builders import PodBuilder, node, pod
from tests.extender.ledgers import Told, facts, open_devices

GIB = 1 << 30
N = NodeName("n")
ONE = pod("one").wants(gpus=1)


def told() -> Told:
    return Told(node("n").with_gpus(2).cards(memory_bytes=24 * GIB).annotation_path())


def hold(cluster: Told, asked: PodBuilder) -> set[str]:
    """Hold for a pod; return the devices that are held for it."""
    cluster.cluster.hold(facts(asked), N, seconds=5)
    held = cluster.cluster.snapshot().holds.get(facts(asked).uid)
    return {device for ids in held.containers.values() for device in ids} if held else set()


def bind(cluster: Told, asked: PodBuilder) -> set[str] | Reason:
    outcome = cluster.bid(asked, "n")
    if isinstance(outcome, Rejection):
        return outcome.main
    assert isinstance(outcome, Reservation)
    return set(outcome.assignment.devices())


def test_bind_gives_what_was_held() -> None:
    cluster = told()
    picky = pod("picky").wants(gpus=1).wishing(uuid="GPU-n-1")

    assert hold(cluster, picky) == {"GPU-n-1"}
    assert hold(cluster, ONE) == {"GPU-n-0"}
    assert open_devices(cluster.cluster.snapshot().nodes[N]) == []
    assert bind(cluster, ONE) == {"GPU-n-0"}
    assert bind(cluster, picky) == {"GPU-n-1"}
    assert dict(cluster.cluster.snapshot().holds) == {}


def test_nothing_is_held_for_a_pod_that_was_deleted_while_filter_looked() -> None:
    cluster = told()
    cluster.pod(ONE)
    cluster.pod(ONE, EventKind.DELETED)

    assert hold(cluster, ONE) == set()
    assert hold(cluster, pod("one").wants(gpus=1).uid("created-again")) == {"GPU-n-0"}


def test_what_is_held_for_another_is_taken_only_where_nothing_else_is_left() -> None:
    cluster = told()
    assert hold(cluster, ONE) == {"GPU-n-0"}

    assert bind(cluster, pod("second").wants(gpus=1)) == {"GPU-n-1"}
    assert bind(cluster, pod("third").wants(gpus=1)) == {"GPU-n-0"}
    assert bind(cluster, ONE) is Reason.IN_USE


def test_what_is_held_is_given_only_while_it_is_what_the_pod_wishes() -> None:
    cluster = told()
    assert hold(cluster, ONE) == {"GPU-n-0"}

    assert bind(cluster, ONE.wishing(exclude_uuid="GPU-n-0")) == {"GPU-n-1"}


def test_held_shares_count_and_a_gpu_that_is_held_whole_has_no_room() -> None:
    cluster = told()
    shares = [pod(f"share-{number}").wants(memory="10Gi") for number in range(5)]

    assert [hold(cluster, share) for share in shares] == [
        {"GPU-n-0"},
        {"GPU-n-0"},
        {"GPU-n-1"},
        {"GPU-n-1"},
        set(),
    ]
    assert hold(cluster, ONE) == set()
    assert [bind(cluster, share) for share in shares[:4]] == [{"GPU-n-0"}] * 2 + [{"GPU-n-1"}] * 2
    assert bind(cluster, shares[4]) is Reason.NOT_ENOUGH
    other = told()
    assert hold(other, ONE) == {"GPU-n-0"}
    assert hold(other, shares[0]) == {"GPU-n-1"}


def test_nothing_is_held_where_kubelet_chooses_but_the_count() -> None:
    cluster = Told(node("n").with_gpus(2).plugin_path())

    assert hold(cluster, ONE) == set()

    assert cluster.cluster.snapshot().nodes[N].free == {"nvidia.com/gpu": 1}


def test_a_hold_of_the_plugin_path_holds_nothing_when_the_node_has_changed_over() -> None:
    cluster = Told(node("n").with_gpus(1).plugin_path())
    hold(cluster, ONE)
    cluster.node(node("n").with_gpus(1).annotation_path())

    assert bind(cluster, pod("second").wants(gpus=1)) == {"GPU-n-0"}
