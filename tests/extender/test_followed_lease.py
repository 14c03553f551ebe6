"""An extender that follows kube-scheduler's Lease: when it leads, and that no epoch comes twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.leading.followed_lease import FollowedLease, Following
from kube.client import Client
from kube.objects import Lease, LeaseSpec
from kube.timestamps import micro_time
from tests.fakes.api_server import Answer, FakeApiServer, Reply, Request, refusal

#: Seconds: more than a busy machine lets a renewal wait, and few, for who waits for their end.
FRESH_FOR = 20.0
SOON_OVER = 1.0
EVERY = 0.02
RENEWED_EVERY = 0.2


class Scheduler:
    """A Lease, and what kube-scheduler does with it: renew, and keep the epoch as it finds it."""

    def __init__(self, holder: str = "our-pod_1", epoch: int = 0) -> None:
        self._lock = threading.Lock()
        self._version = 0
        self.spec: dict[str, Any] | None = {"holderIdentity": holder, "leaseTransitions": epoch}
        self.fault: Reply | None = None
        #: Run once, between a look of ours and the write that follows it.
        self.between: Callable[[], None] = lambda: None
        self.renew()

    def reply(self, request: Request) -> Reply:
        if request.method == "PATCH":
            between, self.between = self.between, lambda: None
            between()
        with self._lock:
            if self.fault is not None:
                return self.fault
            if self.spec is None:
                return refusal(404, "NotFound")
            if request.method == "PATCH":
                if request.body["metadata"]["resourceVersion"] != str(self._version):
                    return refusal(409, "Conflict")
                self._change(request.body["spec"])
            metadata = {"resourceVersion": str(self._version), "name": "lease"}
            return Answer(body={"metadata": metadata, "spec": self.spec})

    def renew(self) -> None:
        with self._lock:
            if self.spec is None:
                return
            self._change({"renewTime": micro_time(datetime.now(UTC))})

    def edit(self, **spec: Any) -> None:
        with self._lock:
            self._change(spec)

    def delete(self) -> None:
        with self._lock:
            self.spec = None

    def acquire(self, holder: str) -> None:
        """Another process takes the Lease, as client-go does."""
        epoch = -1 if self.spec is None else self.spec["leaseTransitions"]
        with self._lock:
            self.spec = {}
            self._change({"holderIdentity": holder, "leaseTransitions": epoch + 1})
        self.renew()

    def _change(self, spec: dict[str, Any]) -> None:
        self._version += 1
        self.spec = {**(self.spec or {}), **spec}


class Extender:
    """A FollowedLease on its thread, with what it said: an epoch, or None when it lost it."""

    def __init__(self, client: Client, fresh_for: float) -> None:
        self._changed = threading.Condition()
        self.said: list[int | None] = []
        self.lease = FollowedLease(
            client,
            namespace="gpudetour-system",
            name="lease",
            hostname="our-pod",
            on_leading=self._say,
            on_lost=lambda: self._say(None),
            fresh_for=fresh_for,
            every=EVERY,
            first=lambda: 1,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.lease.run, args=(self.stop,))
        self.thread.start()

    def _say(self, epoch: int | None) -> None:
        with self._changed:
            self.said.append(epoch)
            self._changed.notify_all()

    def wait_said(self, *expected: int | None) -> None:
        """Wait until so much was said; on a slow machine the next may have been said already."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.said) >= len(expected), 30)
            assert self.said[: len(expected)] == list(expected)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextmanager
def renewing(scheduler: Scheduler) -> Iterator[threading.Event]:
    """Renew as long as the event that is given is set."""
    alive, over = threading.Event(), threading.Event()
    alive.set()

    def work() -> None:
        while not over.wait(RENEWED_EVERY):
            if alive.is_set():
                scheduler.renew()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield alive
    finally:
        over.set()
        thread.join(10)


@contextmanager
def following(scheduler: Scheduler, fresh_for: float = FRESH_FOR) -> Iterator[Extender]:
    with FakeApiServer(scheduler.reply) as server:
        client = Client(server.connection())
        extender = Extender(client, fresh_for)
        try:
            yield extender
        finally:
            extender.end()
            client.close()


def test_the_extender_beside_the_scheduler_that_renews_leads_in_an_epoch_of_its_own() -> None:
    scheduler = Scheduler(epoch=7)
    with renewing(scheduler), following(scheduler) as extender:
        extender.wait_said(8)

        assert extender.lease.epoch == 8
        assert scheduler.spec is not None
        assert scheduler.spec["leaseTransitions"] == 8
        assert scheduler.spec["holderIdentity"] == "our-pod_1"


@pytest.mark.parametrize("holder", ["other-pod_1", "our-pod", "our-pod-2_1", "x_our-pod_1", ""])
def test_nobody_leads_beside_a_scheduler_of_another_pod(holder: str) -> None:
    scheduler = Scheduler(holder)
    with renewing(scheduler), following(scheduler) as extender:
        assert not extender.stop.wait(2 * RENEWED_EVERY)
        assert extender.said == []
        assert scheduler.spec is not None
        assert scheduler.spec["leaseTransitions"] == 0


def test_a_lease_that_is_not_seen_to_be_renewed_is_not_followed() -> None:
    scheduler = Scheduler()
    with following(scheduler) as extender:
        assert not extender.stop.wait(2 * RENEWED_EVERY)
        assert extender.said == []
        scheduler.renew()
        extender.wait_said(1)


def test_the_epoch_ends_by_the_clock_when_the_scheduler_stops_renewing() -> None:
    scheduler = Scheduler()
    with renewing(scheduler) as alive, following(scheduler, SOON_OVER) as extender:
        extender.wait_said(1)
        alive.clear()
        stopped = led = time.monotonic()
        while extender.lease.epoch is not None:
            assert led - stopped < SOON_OVER + 0.5
            extender.stop.wait(EVERY)
            led = time.monotonic()
        extender.wait_said(1, None)

        alive.set()  # it was frozen, and goes on with the same record
        extender.wait_said(1, None, 2)


def test_the_epoch_ends_by_the_clock_when_the_api_server_does_not_answer() -> None:
    scheduler = Scheduler()
    with renewing(scheduler), following(scheduler, SOON_OVER) as extender:
        extender.wait_said(1)
        scheduler.fault = refusal(503)
        extender.wait_said(1, None)
        scheduler.fault = None
        extender.wait_said(1, None, 2)


def test_another_pod_that_takes_the_lease_ends_the_term_at_once() -> None:
    scheduler = Scheduler()
    with renewing(scheduler), following(scheduler) as extender:
        extender.wait_said(1)
        taken = time.monotonic()
        scheduler.acquire("other-pod_1")
        extender.wait_said(1, None)

        assert time.monotonic() - taken < FRESH_FOR / 2


def test_a_scheduler_started_anew_in_our_pod_begins_another_term() -> None:
    scheduler = Scheduler()
    with renewing(scheduler), following(scheduler) as extender:
        extender.wait_said(1)
        scheduler.acquire("our-pod_2")
        extender.wait_said(1, None, 3)


def test_an_extender_started_anew_beside_the_same_scheduler_has_another_epoch() -> None:
    scheduler = Scheduler()
    with renewing(scheduler):
        with following(scheduler) as first:
            first.wait_said(1)
        with following(scheduler) as second:
            second.wait_said(2)

    assert first.said == [1, None]


@pytest.mark.parametrize(("change", "epoch"), [(9, 10), (0, 2)])
def test_an_epoch_changed_by_hand_begins_a_new_term_above_all_that_were(
    change: int, epoch: int
) -> None:
    scheduler = Scheduler()
    with renewing(scheduler), following(scheduler) as extender:
        extender.wait_said(1)
        scheduler.edit(leaseTransitions=change)
        extender.wait_said(1, None, epoch)


def test_a_deleted_lease_does_not_bring_the_epoch_back() -> None:
    scheduler = Scheduler(epoch=4)
    with renewing(scheduler), following(scheduler) as extender:
        extender.wait_said(5)
        scheduler.delete()
        extender.wait_said(5, None)
        scheduler.acquire("our-pod_2")  # client-go creates it with 0
        extender.wait_said(5, None, 6)


def test_a_term_in_an_epoch_that_pods_were_bound_in_before_ends_for_a_later_one() -> None:
    scheduler = Scheduler()
    with renewing(scheduler), following(scheduler) as extender:
        extender.wait_said(1)
        extender.lease.outdo(5)
        extender.wait_said(1, None, 6)


def test_a_record_that_changes_between_look_and_write_is_looked_at_again() -> None:
    scheduler = Scheduler()
    scheduler.between = lambda: scheduler.acquire("other-pod_1")
    with renewing(scheduler), following(scheduler) as extender:
        assert not extender.stop.wait(2 * RENEWED_EVERY)
        assert extender.said == []
        assert scheduler.spec is not None
        assert scheduler.spec["leaseTransitions"] == 1  # the other's, and not raised by us


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 5)), min_size=1, max_size=30))
def test_the_holder_is_never_thought_fresher_than_it_is(looks: list[tuple[bool, float]]) -> None:
    """Each look: whether the scheduler renewed since the one before, and how long after that."""
    known = Following(hostname="our-pod")
    now, renewals, earliest = 0.0, 0, float("-inf")
    for renewed, later in looks:
        if renewed:
            earliest = now  # right after the look before, at worst
            renewals += 1
        now += later
        known.observe(Lease(spec=LeaseSpec(renew_time=str(renewals))), asked=now)

        assert known.since <= earliest


def test_times_that_make_no_sense_are_refused() -> None:
    with FakeApiServer(Scheduler().reply) as server, pytest.raises(ValueError, match="fresh_for"):
        FollowedLease(
            Client(server.connection()),
            namespace="n",
            name="lease",
            hostname="our-pod",
            on_leading=lambda _: None,
            on_lost=lambda: None,
            fresh_for=1,
            every=1,
        )
