"""A leader whose API server hangs, or whose Lease is tampered with."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kube.client import Client
from kube.leases import Elector
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, refusal

#: A term that no busy machine ends, and one whose end is waited for.
PATIENT = {"duration": 60.0, "renew_deadline": 40.0, "retry": 0.1}
HASTY = {"duration": 3.0, "renew_deadline": 1.5, "retry": 0.1}
Timing = dict[str, float]


class LeaseStore:
    """One Lease with compare-and-swap, on a server that can be told to hang."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 0
        self.lease: dict[str, Any] | None = None
        #: `time.monotonic()` when it was last written.
        self.stored = 0.0
        self.fault: Reply | None = None

    def reply(self, request: Request) -> Reply:
        with self._lock:
            if self.fault is not None:
                return self.fault
            match request.method:
                case "GET":
                    found = self.lease
                    return Answer(body=found) if found else refusal(404, "NotFound")
                case "POST":
                    return self._store(request.body) if not self.lease else refusal(409)
                case _:
                    return self._swap(request.body)

    def edit(self, **spec: Any) -> None:
        """Change the record as somebody with kubectl would."""
        with self._lock:
            assert self.lease is not None
            body = copy.deepcopy(self.lease)
            body["spec"].update(spec)
            self._store(body)

    def delete(self) -> None:
        with self._lock:
            self.lease = None

    def _swap(self, body: dict[str, Any]) -> Reply:
        if self.lease is None:
            return refusal(404, "NotFound")
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return refusal(409, "Conflict")
        return self._store(body)

    def _store(self, body: dict[str, Any]) -> Answer:
        self._version += 1
        self.stored = time.monotonic()
        body["metadata"]["resourceVersion"] = str(self._version)
        self.lease = body
        return Answer(body=body)


class Leader:
    def __init__(self, client: Client, timing: Timing) -> None:
        self._changed = threading.Condition()
        self._said: list[int | None] = []
        self.elector = Elector(
            client,
            namespace="default",
            name="lease",
            identity="me",
            on_leading=self._say,
            on_lost=lambda: self._say(None),
            **timing,
            first=lambda: 1,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.elector.run, args=(self.stop,))

    def _say(self, epoch: int | None) -> None:
        with self._changed:
            self._said.append(epoch)
            self._changed.notify_all()

    def wait_said(self, *expected: int | None) -> None:
        """Return once exactly these were said since the start; None is `on_lost`."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._said) >= len(expected), 30)
            assert self._said == list(expected)


@contextmanager
def leading(store: LeaseStore, timing: Timing = PATIENT) -> Iterator[Leader]:
    with FakeApiServer(store.reply) as server:
        client = Client(server.connection())
        leader = Leader(client, timing)
        leader.thread.start()
        try:
            yield leader
        finally:
            leader.stop.set()
            leader.thread.join(10)
            client.close()
        assert not leader.thread.is_alive()


def until(what: Callable[[], bool], timeout: float = 30) -> tuple[float, float]:
    """Poll until it is true; return when it was last found not to be, and when it was."""
    end = time.monotonic() + timeout
    before = looked = time.monotonic()
    while not what():
        assert looked < end, "it did not come true in time"
        threading.Event().wait(0.01)
        before, looked = looked, time.monotonic()
    return before, time.monotonic()


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.CUT, refusal(500), refusal(403)])
def test_the_epoch_ends_by_the_clock_when_the_api_server_is_lost(fault: Reply) -> None:
    store = LeaseStore()
    with leading(store, HASTY) as leader:
        leader.wait_said(1)
        store.fault = fault
        lost = time.monotonic()
        led, ended = until(lambda: leader.elector.epoch is None)
        leader.wait_said(1, None)

    assert led - lost <= HASTY["renew_deadline"]
    # The last renewal was sent a moment before it was stored.
    assert ended - store.stored >= HASTY["renew_deadline"] - 0.5


def test_whoever_lost_touch_for_too_long_leads_again_in_a_new_epoch() -> None:
    store = LeaseStore()
    with leading(store, HASTY) as leader:
        leader.wait_said(1)
        store.fault = refusal(503)
        leader.wait_said(1, None)
        store.fault = None
        leader.wait_said(1, None, 2)

        assert leader.elector.epoch == 2


def test_a_short_outage_changes_nothing() -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)
        store.fault = refusal(503)
        threading.Event().wait(0.5)
        store.fault = None
        renewed = store.lease
        until(lambda: store.lease != renewed)

        leader.wait_said(1)
        assert leader.elector.epoch == 1


@pytest.mark.parametrize(
    ("change", "epoch"),
    [
        ({"holderIdentity": ""}, 2),
        ({"leaseTransitions": 9}, 10),
        ({"leaseTransitions": 0}, 2),
    ],
)
def test_a_record_changed_by_hand_begins_a_new_term(change: dict[str, Any], epoch: int) -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)
        store.edit(**change)
        leader.wait_said(1, None, epoch)


def test_a_deleted_lease_does_not_bring_the_epoch_back() -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)
        store.delete()
        leader.wait_said(1, None, 2)


def test_a_lease_given_to_another_is_lost_and_taken_back_when_that_one_is_silent() -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)
        given = time.monotonic()
        store.edit(holderIdentity="other", leaseTransitions=2, leaseDurationSeconds=1)
        leader.wait_said(1, None, 3)

    assert time.monotonic() - given >= 1


def test_a_clean_stop_hands_the_lease_back_and_says_so() -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)

    leader.wait_said(1, None)
    assert store.lease is not None
    assert store.lease["spec"]["holderIdentity"] == ""
    assert store.lease["spec"]["leaseTransitions"] == 1


def test_who_resigns_leads_no_more_and_does_not_run_again() -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)
        leader.elector.resign()
        leader.wait_said(1, None)

        assert leader.elector.epoch is None
        assert leader.thread.is_alive()  # until it is told to stop
        until(lambda: holder(store) == "")


def test_a_label_that_comes_in_between_does_not_keep_the_lease_from_being_handed_back() -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)
        store.edit()  # another version of the same

    leader.wait_said(1, None)
    assert holder(store) == ""


def test_an_epoch_that_is_outdone_is_left_for_a_later_one() -> None:
    store = LeaseStore()
    with leading(store) as leader:
        leader.wait_said(1)
        leader.elector.outdo(0)
        leader.elector.outdo(41)
        leader.wait_said(1, None, 42)

        leader.elector.outdo(7)
        version = version_of(store)
        until(lambda: version_of(store) != version)  # renewed all the same
        assert leader.elector.epoch == 42


def version_of(store: LeaseStore) -> object:
    return store.lease["metadata"]["resourceVersion"] if store.lease is not None else None


def holder(store: LeaseStore) -> object:
    return store.lease["spec"]["holderIdentity"] if store.lease is not None else None


def test_times_that_make_no_sense_are_refused() -> None:
    with FakeApiServer(LeaseStore().reply) as server, pytest.raises(ValueError, match="duration"):
        Elector(
            Client(server.connection()),
            namespace="default",
            name="lease",
            identity="me",
            on_leading=lambda _: None,
            on_lost=lambda: None,
            duration=10,
            renew_deadline=10,
        )
