"""Leader election and heartbeats on a real kube-apiserver."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kube.client import Client
from kube.connection import connect
from kube.heartbeat import Heartbeat
from kube.leases import Elector
from kube.objects import Lease, OwnerReference
from localcluster.cluster import LocalCluster
from localcluster.waiting import until

pytestmark = pytest.mark.controlplane

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


@pytest.fixture
def client(control_plane: LocalCluster) -> Iterator[Client]:
    client = Client(connect(str(control_plane.admin_kubeconfig)))
    yield client
    client.close()


@pytest.fixture
def name(request: pytest.FixtureRequest, client: Client) -> Iterator[str]:
    """A Lease of its own for one test."""
    name = f"test-{abs(hash(request.node.name)):x}"
    yield name
    client.delete(f"{LEASES}/{name}")


class Candidate:
    """An elector on its thread, with what it said: an epoch, or None when it lost it."""

    def __init__(self, client: Client, name: str, identity: str, **timing: float) -> None:
        self.said: list[int | None] = []
        # An API server that is busy for a while ends no term that no test waits to end.
        times = {"duration": 60.0, "renew_deadline": 40.0, "retry": 0.2, **timing}
        self.elector = Elector(
            client,
            namespace="default",
            name=name,
            identity=identity,
            on_leading=self.said.append,
            on_lost=lambda: self.said.append(None),
            duration=times["duration"],
            renew_deadline=times["renew_deadline"],
            retry=times["retry"],
            first=lambda: 1,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.elector.run, args=(self.stop,))
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(15)
        assert not self.thread.is_alive()


Start = Callable[..., Candidate]


@pytest.fixture
def start(client: Client, name: str) -> Iterator[Start]:
    started: list[Candidate] = []

    def begin(identity: str, **timing: float) -> Candidate:
        started.append(Candidate(client, name, identity, **timing))
        return started[-1]

    yield begin
    for candidate in started:
        candidate.end()


def read(client: Client, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = client.get(f"{LEASES}/{name}")["spec"]
    return spec


def wait_epoch(candidate: Candidate, epoch: int | None, timeout: float = 30) -> None:
    until(lambda: candidate.elector.epoch == epoch, timeout=timeout, what=f"epoch {epoch}")


def test_the_first_leader_creates_the_lease_with_epoch_1_and_keeps_renewing(
    client: Client, name: str, start: Start
) -> None:
    leader = start("a")
    wait_epoch(leader, 1)
    first = read(client, name)
    until(lambda: read(client, name)["renewTime"] > first["renewTime"], timeout=30, what="renewal")
    later = read(client, name)

    assert (first["holderIdentity"], first["leaseTransitions"]) == ("a", 1)
    assert first["leaseDurationSeconds"] == 60
    assert later["acquireTime"] == first["acquireTime"]
    assert later["leaseTransitions"] == 1


def test_a_clean_stop_hands_over_at_once_to_the_next_epoch(
    client: Client, name: str, start: Start
) -> None:
    leader = start("a")
    wait_epoch(leader, 1)
    standby = start("b")
    leader.end()
    stopped = time.monotonic()
    wait_epoch(standby, 2)

    assert time.monotonic() - stopped < 5  # and not the 60 seconds of a leader that vanished
    assert leader.said == [1, None]
    assert leader.elector.epoch is None
    assert read(client, name)["holderIdentity"] == "b"


def test_a_leader_that_vanished_is_followed_after_its_duration_and_not_before(
    client: Client, name: str, start: Start
) -> None:
    # Its clock is far ahead: that must not keep the others waiting, nor hurry them.
    vanished = {
        "holderIdentity": "vanished",
        "leaseDurationSeconds": 2,
        "leaseTransitions": 41,
        "renewTime": "2099-01-01T00:00:00.000000Z",
    }
    client.create(LEASES, {"metadata": {"name": name}, "spec": vanished})
    began = time.monotonic()
    candidate = start("b")
    wait_epoch(candidate, 42)

    assert time.monotonic() - began >= 2


def test_of_many_candidates_one_leads_and_every_term_has_its_own_epoch(start: Start) -> None:
    candidates = [start(f"c{number}") for number in range(5)]
    for epoch in range(1, 6):
        until(
            lambda epoch=epoch: epoch in {c.elector.epoch for c in candidates},  # type: ignore[misc]
            timeout=20,
            what=f"a leader of epoch {epoch}",
        )
        leaders = [c for c in candidates if c.elector.epoch is not None]
        assert len(leaders) == 1
        leaders[0].end()
        candidates.remove(leaders[0])


def test_a_frozen_api_server_ends_the_term_by_the_clock(
    control_plane: LocalCluster, start: Start
) -> None:
    leader = start("a", duration=3, renew_deadline=1.5)
    wait_epoch(leader, 1)
    pid = control_plane.processes.pid("kube-apiserver")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        frozen = led = time.monotonic()
        while leader.elector.epoch is not None:
            assert led - frozen < 2.5, "it leads for longer than it may"
            leader.stop.wait(0.05)
            led = time.monotonic()
        # A renewal that was under way may still come through and keep the term; let it fail too.
        until(lambda: leader.said == [1, None], timeout=30, what="the end of the term")
    finally:
        os.kill(pid, signal.SIGCONT)
    # The answer to the first attempt may come too late, and then it is the next one's.
    until(lambda: len(leader.said) > 2, timeout=30, what="another term")

    assert leader.said[:2] == [1, None]
    assert (leader.said[2] or 0) > 1


def test_labels_of_others_on_the_lease_cost_no_term(
    control_plane: LocalCluster, client: Client, name: str, start: Start
) -> None:
    leader = start("a")
    wait_epoch(leader, 1)
    for number in range(5):
        control_plane.kubectl("label", "--overwrite", "lease", name, f"test={number}")
    before = read(client, name)["renewTime"]
    until(lambda: read(client, name)["renewTime"] > before, timeout=30, what="renewal")

    assert leader.said == [1]
    found = client.get(f"{LEASES}/{name}", type=Lease)
    assert found.metadata.labels == {"test": "4"}


def test_a_heartbeat_creates_its_lease_once_and_then_renews_it(client: Client, name: str) -> None:
    account = client.get("/api/v1/namespaces/default/serviceaccounts/default")
    owner = OwnerReference(
        api_version="v1", kind="ServiceAccount", name="default", uid=account["metadata"]["uid"]
    )
    heart = Heartbeat(
        client,
        namespace="default",
        name=name,
        identity="agent-1",
        owner=lambda: owner,
        timing=(0.2, 5),
    )
    stop = threading.Event()
    thread = threading.Thread(target=heart.run, args=(stop,))
    thread.start()
    try:
        until(lambda: heart.last_beat, timeout=30, what="the first beat")
        first = client.get(f"{LEASES}/{name}", type=Lease)
        until(
            lambda: read(client, name)["renewTime"] > (first.spec.renew_time or ""),
            timeout=30,
            what="the second beat",
        )
    finally:
        stop.set()
        thread.join(10)

    assert first.spec.holder_identity == "agent-1"
    assert first.spec.lease_duration_seconds == 5
    assert first.metadata.owner_references == [owner]


def test_a_heartbeat_takes_over_from_the_process_before_it(client: Client, name: str) -> None:
    for identity in ("agent-1", "agent-2"):
        Heartbeat(client, namespace="default", name=name, identity=identity).beat()

        assert read(client, name)["holderIdentity"] == identity
