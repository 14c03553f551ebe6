"""What each change does to the ledger, one story at a time."""

from __future__ import annotations

from extender.placement.changes import NodeGone, NodeSeen, PodGone, PodSeen
from extender.placement.facts import ClaimKey, read_pod
from extender.placement.layout import Layouts
from extender.placement.ledger import MEMORY_OF_CLAIMS, Ledger
from extender.placement.nodes import read_node
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import MEMORY_OF_ENDED
from gpus.model import GPU_RESOURCE, Health, NodeName
from kube.reflector import EventKind
from tests.builders import PodBuilder, node, pod
from tests.extender.ledgers import Told, facts, ledger, node_facts

N = NodeName("n")
PLUGIN = node("n").with_gpus(4).plugin_path()
ANNOTATION = node("n").with_gpus(4).annotation_path()
HOLDER = pod("a").wants(gpus=1).on("n").assigned({"main": ["GPU-n-0"]})


def free(of: Ledger) -> int:
    return of.nodes[N].free.get(GPU_RESOURCE, 0)


def seen(before: Ledger, builder: PodBuilder) -> Ledger:
    return before.apply(PodSeen(facts(builder)))


def gone(before: Ledger, builder: PodBuilder) -> Ledger:
    read = facts(builder)
    return before.apply(PodGone(read.key, read.uid))


def test_pods_may_come_before_their_node() -> None:
    first = ledger([], [HOLDER])

    after = first.apply(NodeSeen(N, node_facts(ANNOTATION)))

    assert free(after) == 3
    assert after == ledger([ANNOTATION], [HOLDER])


def test_a_node_that_is_created_again_still_has_its_pods() -> None:
    before = ledger([ANNOTATION], [HOLDER])

    without = before.apply(NodeGone(N))
    again = without.apply(NodeSeen(N, node_facts(ANNOTATION)))

    assert without.nodes[N].blocked is Reason.NO_INVENTORY
    assert again == before


def test_a_node_and_its_pods_leave_nothing_behind() -> None:
    empty = gone(ledger([PLUGIN], [HOLDER.devices_from(None)]).apply(NodeGone(N)), HOLDER)

    assert dict(empty.nodes) == {}
    assert len(empty.pods) == 0


def test_a_change_that_means_nothing_makes_no_new_ledger() -> None:
    before = ledger([ANNOTATION], [HOLDER])

    assert seen(before, HOLDER.annotated("example.org/note", "x")) is before
    assert before.apply(NodeSeen(N, node_facts(ANNOTATION))) is before
    assert gone(before, pod("never seen")) is before


def test_only_the_annotation_of_a_bound_pod_counts() -> None:
    forged = pod("a").wants(gpus=1).assigned({"main": ["GPU-n-0"]})

    assert free(ledger([ANNOTATION], [forged])) == 4
    assert free(ledger([ANNOTATION], [forged.on("n")])) == 3


def test_the_same_name_with_a_new_uid_is_a_new_pod() -> None:
    before = ledger([ANNOTATION], [HOLDER])

    pending_again = seen(before, pod("a").uid("another").wants(gpus=1))
    late_delete = gone(pending_again, HOLDER)

    assert free(pending_again) == 4
    assert late_delete == pending_again


def test_what_a_pod_wishes_for_is_read_again_until_it_is_bound() -> None:
    told = Told(ANNOTATION)

    def wished() -> set[str]:
        known = told.cluster.snapshot().pods.get(facts(HOLDER).key)
        assert known is not None
        assert known.demand is not None
        return set(known.demand.wishes.uuids)

    told.pod(pod("a").wants(gpus=1).wishing(uuid="GPU-n-1"))
    assert wished() == {"GPU-n-1"}
    told.pod(pod("a").wants(gpus=1).wishing(uuid="GPU-n-2"))
    assert wished() == {"GPU-n-2"}
    told.pod(HOLDER.wishing(uuid="GPU-n-3,nonsense"))
    assert wished() == set()
    assert free(told.cluster.snapshot()) == 3


def test_old_news_of_a_pod_is_ignored() -> None:
    bound = ledger([ANNOTATION], [HOLDER])
    ended = seen(bound, HOLDER.phase("Succeeded"))

    assert seen(bound, pod("a").wants(gpus=1)) is bound
    assert seen(ended, HOLDER) is ended
    assert free(ended) == 4


def test_a_device_of_a_pod_that_ended_is_free_although_kubelet_still_names_it() -> None:
    lagging = PLUGIN.in_use({"GPU-n-0": "uid-a"})

    assert free(ledger([lagging], [HOLDER])) == 3
    assert free(seen(ledger([lagging], [HOLDER]), HOLDER.phase("Failed"))) == 4
    assert free(gone(ledger([lagging], [HOLDER]), HOLDER)) == 4
    assert free(ledger([lagging])) == 3


def test_the_memory_of_ended_pods_is_bounded() -> None:
    result = ledger([PLUGIN])
    for number in range(MEMORY_OF_ENDED + 5):
        result = seen(result, pod(f"p{number}").wants(gpus=1).on("n").phase("Succeeded"))

    assert len(result.nodes[N].ended) == MEMORY_OF_ENDED
    assert result.nodes[N].ended[-1] == f"uid-p{MEMORY_OF_ENDED + 4}"


def test_of_two_pods_with_one_device_list_the_younger_is_the_rival() -> None:
    older = pod("a").created("2026-01-01T00:00:00Z")
    younger = pod("b").created("2026-01-01T00:00:05Z").devices_from("gpudetour-devices-x")
    older = older.devices_from("gpudetour-devices-x")
    both = ledger([], [younger, older])

    assert both.rival(facts(older)) is None
    assert both.rival(facts(younger)) == facts(older)
    elsewhere = pod("b", "other").devices_from("gpudetour-devices-x")
    assert both.rival(facts(elsewhere)) is None
    assert gone(both, older).rival(facts(younger)) is None


def test_a_pod_that_is_bound_owns_its_device_list_even_when_it_has_ended() -> None:
    bound = HOLDER.devices_from("gpudetour-devices-x").created("2026-02-01T00:00:00Z")
    older = pod("b").devices_from("gpudetour-devices-x").created("2026-01-01T00:00:00Z")

    assert ledger([], [older, bound]).rival(facts(older)) == facts(bound)
    ended = bound.phase("Succeeded")
    assert ledger([], [older, ended]).rival(facts(older)) == facts(ended)


def test_device_lists_of_pods_that_are_gone_are_remembered_for_a_while() -> None:
    result = gone(ledger([], [HOLDER]), HOLDER)

    assert list(result.old_claims) == [facts(HOLDER).claim]
    for number in range(MEMORY_OF_CLAIMS):
        other = pod(f"p{number}")
        result = gone(seen(result, other), other)
    assert len(result.old_claims) == MEMORY_OF_CLAIMS
    assert facts(HOLDER).claim not in result.old_claims


def test_a_config_map_may_be_there_where_a_bind_began_before_the_pod_was_bound() -> None:
    told = Told(ANNOTATION, node("plug").with_gpus(4).plugin_path())
    claims = {name: facts(pod(name)).claim or ClaimKey("") for name in "abcd"}
    told.pod(pod("a").wants(gpus=1), listed=True)
    told.pod(pod("b").wants(gpus=1))
    told.pod(pod("c").wants(gpus=1))
    told.reserved(pod("c").wants(gpus=1), "n")
    told.reserved(pod("d").wants(gpus=1), "plug")

    def may_be_told() -> list[str]:
        return [name for name in "abcd" if told.cluster.snapshot().may_be_told(claims[name])]

    assert may_be_told() == ["a", "c"]
    told.pod(pod("a").wants(gpus=1).on("plug"))
    told.pod(pod("c").wants(gpus=1).annotated("touched", "1"))
    assert may_be_told() == ["c"]
    told.pod(pod("b").wants(gpus=1), EventKind.DELETED)
    assert may_be_told() == ["b", "c"]


def test_a_reservation_holds_until_the_watch_shows_the_pod_bound() -> None:
    told = Told(ANNOTATION)
    told.pod(pod("a").wants(gpus=1))
    reservation = told.reserved(pod("a").wants(gpus=1), "n")
    told.pod(pod("a").wants(gpus=1).annotated("seen", "late"))
    assert free(told.cluster.snapshot()) == 3

    devices = reservation.assignment.containers
    told.pod(pod("a").wants(gpus=1).on("n").assigned(devices))

    assert free(told.cluster.snapshot()) == 3
    assert dict(told.cluster.snapshot().reservations) == {}


def test_a_reservation_ends_with_its_pod_wherever_that_went() -> None:
    for end in (HOLDER, HOLDER.on("elsewhere"), HOLDER.phase("Failed")):
        told = Told(ANNOTATION)
        told.reserved(pod("a").wants(gpus=1), "n")
        told.pod(end)
        assert dict(told.cluster.snapshot().reservations) == {}
    told = Told(ANNOTATION)
    told.reserved(pod("a").wants(gpus=1), "n")
    told.pod(pod("a"), EventKind.DELETED)
    assert free(told.cluster.snapshot()) == 4


def test_reserving_again_gives_the_same_devices() -> None:
    told = Told(ANNOTATION)

    first, again = (told.reserved(pod("a").wants(gpus=2), "n", epoch=e) for e in (1, 2))

    assert first.assignment.containers == again.assignment.containers
    assert again.assignment.epoch == 2
    assert free(told.cluster.snapshot()) == 2


def test_reserve_and_release_leave_the_ledger_as_it_was() -> None:
    told = Told(ANNOTATION)
    before = told.cluster.snapshot()

    told.cluster.release(told.reserved(pod("a").wants(gpus=2), "n"))

    after = told.cluster.snapshot()
    assert (after.nodes, after.reservations) == (before.nodes, before.reservations)


def test_a_release_of_an_earlier_leadership_changes_nothing() -> None:
    told = Told(ANNOTATION)
    old = told.reserved(pod("a").wants(gpus=1), "n", epoch=1)
    told.cluster.forget_pods()
    told.reserved(pod("a").wants(gpus=1), "n", epoch=2)

    told.cluster.release(old)

    assert free(told.cluster.snapshot()) == 3


def test_a_reservation_whose_binding_was_sent_is_kept_and_given_no_other_devices() -> None:
    told = Told(node("n").with_gpus(2).annotation_path())
    reservation = told.reserved(pod("a").wants(gpus=1), "n")
    told.cluster.sent(reservation)

    told.cluster.release(reservation)
    assert free(told.cluster.snapshot()) == 1
    assert told.reserved(pod("a").wants(gpus=1), "n").sent

    sick = node("n").with_gpus(2).health(Health.LOST, 0).annotation_path()
    told.node(sick)
    assert told.bid(pod("a").wants(gpus=1), "n") == Rejection((Reason.HOLDER_UNKNOWN,))

    told.cluster.release(reservation, even_sent=True)
    assert dict(told.cluster.snapshot().reservations) == {}


def test_forgetting_pods_keeps_the_nodes() -> None:
    told = Told(ANNOTATION)
    told.pod(HOLDER)
    told.reserved(pod("b").wants(gpus=1), "n")

    told.cluster.forget_pods()

    assert told.cluster.snapshot() == ledger([ANNOTATION])


def test_facts_are_read_again_only_where_their_text_changed() -> None:
    layouts = Layouts()
    first = read_node(ANNOTATION.build(), layouts=layouts)

    assert read_node(ANNOTATION.build(), layouts=layouts, previous=first) is first
    other = read_node(ANNOTATION.in_use({}).build(), layouts=layouts, previous=first)
    assert other is not first
    assert other.devices is first.devices
    read = read_pod(HOLDER.build())
    assert read_pod(HOLDER.deleting().build(), previous=read).assignment is read.assignment
