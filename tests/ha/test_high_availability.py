"""Replicas, API server, etcd and connections fail under load: no GPU twice, no pod lost, no pause
longer than promised.

Everything here is a process of its own, and what is true is what the auditor saw in the API.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import urllib3

from localcluster.controlplane import Restartable
from localcluster.waiting import until
from tests.ha.measures import Measures
from tests.ha.replicas import Replica
from tests.ha.site import LEASE, Site
from tests.ha.traps import Trap, Where, binding, config_map, renewal, watch

pytestmark = pytest.mark.controlplane

#: Seconds until the next bind: after the leader is lost, and after one that stopped in order.
LOST, STOPPED = 20.0, 3.0
#: Seconds that kube-scheduler waits for an extender, as the shipped configuration says.
PATIENCE = 2.0
#: Binds in all.
ENOUGH = 5000


class Steps:
    """Binds of one leader, each kept at another step: around the ConfigMap and the Binding."""

    def __init__(self, leader: Replica, more: Callable[[], None] = lambda: None) -> None:
        """`more` lets pods come that are to be bound, when the traps are there."""
        self._traps: list[Trap] = [
            leader.api.keep(step, where) for step in (config_map, binding) for where in Where
        ]
        more()
        for trap in self._traps:
            trap.wait()

    def pass_on(self) -> None:
        for trap in self._traps:
            trap.pass_on()

    def drop(self) -> None:
        for trap in self._traps:
            trap.drop()


def next_bind(site: Site, began: float, *, epoch: int) -> float:
    """Seconds until a pod was bound in a later epoch."""
    return site.auditor.next_bind(epoch=epoch, since=began, timeout=90) - began


def let_pass(seconds: float) -> None:
    """Let time go by, where that is what breaks."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, timeout=seconds + 1, what="the passing of time")


@pytest.mark.parametrize("arrives", [False, True], ids=["lost", "late"])
def test_a_leader_killed_at_every_step_of_a_bind(
    site: Site, measures: Measures, arrives: bool
) -> None:
    leader, epoch = site.leader(), site.epoch()
    refused = leader.refused
    steps = Steps(leader)
    killed = time.monotonic()
    leader.kill()
    if not arrives:
        steps.drop()

    assert measures.note("SIGKILL of the leader", next_bind(site, killed, epoch=epoch)) <= LOST

    steps.pass_on()
    if arrives:  # what was still on its way came too late
        until(lambda: leader.refused >= refused + 2, timeout=30, what="the fence refusing both")


def test_a_leader_frozen_at_every_step_of_a_bind_wakes_up_too_late(
    site: Site, measures: Measures
) -> None:
    leader, epoch = site.leader(), site.epoch()
    refused = leader.refused
    steps = Steps(leader)
    frozen = time.monotonic()
    leader.freeze()

    assert measures.note("SIGSTOP of the leader", next_bind(site, frozen, epoch=epoch)) <= LOST

    steps.pass_on()
    until(lambda: leader.refused >= refused + 2, timeout=30, what="the fence refusing both")
    leader.thaw()
    # It goes on where it was: with the Binding for the ConfigMap that was made before.
    until(lambda: leader.refused >= refused + 3, timeout=30, what="the fence refusing its Binding")
    assert not leader.serves


def test_a_leader_frozen_for_a_moment_goes_on_in_its_epoch(site: Site, measures: Measures) -> None:
    leader, epoch = site.leader(), site.epoch()
    steps = Steps(leader)
    frozen = time.monotonic()
    leader.freeze()
    until(lambda: leader.endpoint not in site.front.ready, timeout=10, what="silence noticed")
    thawed = time.monotonic()
    leader.thaw()
    steps.pass_on()

    measures.note("SIGCONT in time", site.bind_some(10))
    assert thawed - frozen < 10
    assert site.epoch() == epoch


@pytest.mark.parametrize("number", range(2))
def test_a_leader_that_stops_hands_over(site: Site, measures: Measures, number: int) -> None:
    del number
    leader, epoch = site.leader(), site.epoch()
    stopped = time.monotonic()
    leader.terminate()

    assert measures.note("SIGTERM of the leader", next_bind(site, stopped, epoch=epoch)) <= STOPPED


def test_of_two_leaders_at_once_the_api_server_obeys_the_later(
    site: Site, measures: Measures
) -> None:
    first, epoch = site.leader(), site.epoch()
    refused = first.refused
    # It cannot learn that somebody gave its Lease away, and believes in it for seconds.
    renewals = first.api.keep(renewal, count=99)
    renewals.wait(1)
    forced = time.monotonic()
    site.edit_lease(holderIdentity="")

    assert measures.note("a second leader is forced", next_bind(site, forced, epoch=epoch)) <= LOST

    until(lambda: first.refused > refused, timeout=30, what="the fence refusing the first")
    until(lambda: len(site.front.ready) == 1, timeout=20, what="the first giving up")
    renewals.pass_on()
    assert site.epoch() == epoch + 1


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"leaseTransitions": 0}, id="epoch set back"),
        pytest.param({"leaseTransitions": None}, id="epoch removed"),
        pytest.param({"leaseTransitions": 2**31 - 1}, id="no epoch left"),
        pytest.param({"holderIdentity": "somebody", "leaseTransitions": 1000}, id="given away"),
    ],
)
def test_a_lease_edited_by_hand_costs_a_term_and_no_more(
    site: Site, measures: Measures, edit: dict[str, object]
) -> None:
    epoch = site.epoch()
    edited = time.monotonic()
    site.edit_lease(**edit)

    what = f"Lease edited: {', '.join(edit)}"
    assert measures.note(what, next_bind(site, edited, epoch=epoch)) <= LOST


def test_a_lease_that_is_deleted_is_made_anew(site: Site, measures: Measures) -> None:
    epoch = site.epoch()
    deleted = time.monotonic()
    site.cluster.api.delete(LEASE)

    assert measures.note("Lease deleted", next_bind(site, deleted, epoch=epoch)) <= LOST


def test_no_epoch_comes_back_when_nobody_is_left_who_knows_it(site: Site) -> None:
    epoch, begun = site.epoch(), time.monotonic()
    for replica in site.replicas:
        replica.kill()
    site.cluster.api.delete(LEASE)
    site.whole()

    assert next_bind(site, begun, epoch=epoch) > 0
    assert site.epoch() > epoch


@pytest.mark.parametrize("part", ["kube-apiserver", "etcd"])
def test_binding_goes_on_after_a_restart_of(
    site: Site, measures: Measures, part: Restartable
) -> None:
    with site.load.nothing_ends() as more:
        steps = Steps(site.leader(), more)
        killed = time.monotonic()
        site.cluster.restart(part)
        more()
        steps.pass_on()
        site.bind_some(10, since=killed)
        measures.note(f"SIGKILL of {part}: longest pause", site.longest_pause(killed))


def test_watches_that_are_cut_go_on_where_they_were(site: Site) -> None:
    leader, epoch = site.leader(), site.epoch()
    for _ in range(5):
        until(leader.api.cut_watches, timeout=20, what="a watch to cut")
        site.bind_some(10)

    assert site.epoch() == epoch


def test_a_watch_from_before_a_compaction_is_begun_anew(site: Site, measures: Measures) -> None:
    leader = site.leader()
    before = began_anew(leader)
    with site.load.nothing_ends() as more:
        watches = leader.api.keep(watch, count=99)
        leader.api.cut_watches()
        watches.wait(2)
        more()
        site.bind_some(10)  # of which the leader hears nothing
        site.cluster.compact_etcd()
        killed = time.monotonic()
        site.cluster.restart("kube-apiserver")  # whose memory would still reach back
        more()
        watches.pass_on()
        site.bind_some(10, since=killed)
        measures.note("410 on every watch: longest pause", site.longest_pause(killed))

    until(lambda: began_anew(leader) > before, timeout=30, what="a listing after 410")


@pytest.mark.parametrize("where", Where, ids=["not begun", "done"])
def test_a_bind_whose_answer_comes_after_the_scheduler_gave_up(site: Site, where: Where) -> None:
    trap = site.leader().api.keep(binding, where, count=5)
    names = {request.path.split("/")[-2] for request in trap.wait()}
    let_pass(1.5 * PATIENCE)
    trap.pass_on()

    until(lambda: names <= site.auditor.bound_names(), timeout=30, what=f"{names} bound")


def test_two_schedulers_at_once_bind_each_pod_once(site: Site) -> None:
    with site.second_scheduler() as url:
        site.bind_some(150)
        for one in (url, site.cluster.scheduler.url):
            until(
                lambda one=one: scheduled_by(one, ca_file=site.cluster.ca_file) >= 20,  # type: ignore[misc]
                timeout=60,
                what=f"pods placed by {one}",
            )


@pytest.mark.timeout(900)  # where the machine has much else to do
def test_at_least_five_thousand_binds_with_no_gpu_given_twice_and_no_pod_lost(
    built: Site, measures: Measures
) -> None:
    built.whole()
    with built.load.running(rate=200):
        for trouble in itertools.cycle((hand_over, cut, replace_lease, freeze_for_a_moment)):
            built.bind_some(200)
            if built.auditor.binds >= ENOUGH:
                break
            trouble(built, measures)
            built.whole()
    built.settle()

    assert built.auditor.binds >= ENOUGH
    assert built.auditor.faults == []
    assert built.auditor.compare() == []
    assert [uid for uid in built.load.created if not built.auditor.knows(uid)] == []


def hand_over(site: Site, measures: Measures) -> None:
    leader, epoch = site.leader(), site.epoch()
    stopped = time.monotonic()
    leader.terminate()
    measures.note("SIGTERM under full load", next_bind(site, stopped, epoch=epoch))


def cut(site: Site, measures: Measures) -> None:
    del measures
    for replica in site.replicas:
        replica.api.cut_watches()


def replace_lease(site: Site, measures: Measures) -> None:
    epoch, deleted = site.epoch(), time.monotonic()
    site.cluster.api.delete(LEASE)
    measures.note("Lease deleted under full load", next_bind(site, deleted, epoch=epoch))


def freeze_for_a_moment(site: Site, measures: Measures) -> None:
    del measures
    leader = site.leader()
    leader.freeze()
    until(lambda: leader.endpoint not in site.front.ready, timeout=10, what="silence noticed")
    leader.thaw()


def began_anew(replica: Replica) -> int:
    """How often a replica had to list a collection again because its version was too old."""
    lost = replica.said("lost touch with the API server")
    return sum(entry["relist"] and "410" in entry["error"] for entry in lost)


def scheduled_by(url: str, *, ca_file: Path) -> float:
    """How many pods a kube-scheduler says that it placed."""
    with urllib3.PoolManager(retries=False, timeout=5.0, ca_certs=str(ca_file)) as pool:
        answer = pool.request("GET", f"{url}/metrics")
    assert answer.status == HTTPStatus.OK
    name = "scheduler_schedule_attempts_total{"
    lines = answer.data.decode().splitlines()
    found = [line for line in lines if line.startswith(name) and 'result="scheduled"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)
