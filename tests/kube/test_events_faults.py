"""Events while the API server hangs, refuses, or is away; the caller never notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from kube.client import Client
from kube.events import EventRecorder
from kube.objects import ObjectReference
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, refusal

POD = ObjectReference(api_version="v1", kind="Pod", namespace="default", name="p", uid="u")


class Mood:
    """What every request is answered with at the moment."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def answer(self, request: Request) -> Reply:
        del request
        return self.reply


@contextmanager
def recording(server: FakeApiServer, *, timeout: float = 5) -> Iterator[EventRecorder]:
    client = Client(server.connection(), timeout=timeout)
    recorder = EventRecorder(client, component="test", instance="test-1")
    stop = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stop,))
    thread.start()
    try:
        yield recorder
    finally:
        stop.set()
        thread.join(10)
        client.close()
    assert not thread.is_alive()


def report(recorder: EventRecorder, message: str = "m", *, reason: str = "R") -> None:
    recorder.event(POD, type="Normal", reason=reason, message=message)


def test_what_repeats_while_the_server_is_away_is_written_once_with_its_count() -> None:
    mood = Mood(refusal(503))
    with FakeApiServer(mood.answer) as server, recording(server) as recorder:
        report(recorder)
        server.wait_for_requests(1)
        for _ in range(9):
            report(recorder)
        mood.reply = Answer()
        seen = server.wait_for_requests(2)
        while seen[-1].body["count"] < 10:  # it may have been refused once more meanwhile
            seen = server.wait_for_requests(len(seen) + 1)

    assert seen[-1].method == "POST"
    assert seen[-1].body["count"] == 10
    assert seen[-1].body["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "default",
        "name": "p",
        "uid": "u",
    }


def test_reporting_does_not_wait_for_a_server_that_hangs() -> None:
    patience = 3.0
    with (
        FakeApiServer(Mood(Fault.HANG).answer) as server,
        recording(server, timeout=patience) as recorder,
    ):
        report(recorder, "first")
        server.wait_for_requests(1)
        before = time.monotonic()
        for number in range(2000):
            report(recorder, str(number))

        assert time.monotonic() - before < patience / 2


def test_a_flood_is_bounded_and_said_to_be_cut() -> None:
    with structlog.testing.capture_logs() as logs:
        mood = Mood(refusal(503))
        with FakeApiServer(mood.answer) as server, recording(server) as recorder:
            for number in range(600):
                report(recorder, reason=f"R{number}")
            mood.reply = Answer()
            server.wait_for_requests(25)

        written = [request for request in server.requests if request.method == "POST"]

    dropped = sum(log["dropped"] for log in logs if log["event"] == "too many events at once")
    # One more may have been on its way to the server when the queue was full.
    assert 600 - 512 - 1 <= dropped <= 600 - 512
    assert len(written) < 40  # a burst, and then two a second


def test_ever_new_messages_of_one_reason_become_one_event_after_some() -> None:
    with FakeApiServer(Mood(Answer()).answer) as server:
        with recording(server) as recorder:
            for number in range(100):
                report(recorder, str(number))
            report(recorder, "3")
        created = [r.body for r in server.requests if r.method == "POST"]
        changed = [r.body for r in server.requests if r.method == "PATCH"]

    assert len(created) == 11
    (combined,) = [b for b in created if b["message"].startswith("(combined from similar")]
    last = [b for b in [combined, *changed] if b["message"].endswith(" 99")]
    assert [b["count"] for b in last] == [90]


def test_what_is_refused_for_good_does_not_stand_in_the_way() -> None:
    def reply(request: Request) -> Reply:
        return refusal(403, "Forbidden") if request.body["message"] == "bad" else Answer()

    with FakeApiServer(reply) as server, recording(server) as recorder:
        report(recorder, "bad")
        report(recorder, "good")
        seen = server.wait_for_requests(2)

    assert [request.body["message"] for request in seen] == ["bad", "good"]


def test_what_still_waits_at_the_end_is_written() -> None:
    with FakeApiServer(Mood(Answer()).answer) as server:
        with recording(server) as recorder:
            report(recorder)

        assert len(server.requests) == 1
