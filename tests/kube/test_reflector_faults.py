"""A reflector against an API server that hangs, cuts, lies and refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import chain, repeat

import pytest

from kube.client import Client
from kube.objects import Pod
from kube.reflector import Event, Reflector, WatchTiming
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, Stream, refusal
from tests.kube.following import following
from tests.kube.wire import PATH, bookmark, error, line, listing, pod

QUIET = Stream([Fault.HANG])


def scripted(*, lists: Iterable[Reply], watches: Iterable[Reply]) -> Callable[[Request], Reply]:
    """Answer lists and watches in turn; the last of each goes on for ever."""
    *first_lists, last_list = lists
    *first_watches, last_watch = watches
    of_list = chain(first_lists, repeat(last_list))
    of_watch = chain(first_watches, repeat(last_watch))
    return lambda request: next(of_watch if request.is_watch else of_list)


def watches(requests: list[Request]) -> list[Request]:
    return [request for request in requests if request.is_watch]


def lists(requests: list[Request]) -> list[Request]:
    return [request for request in requests if not request.is_watch]


def test_it_lists_in_pages_without_a_version_and_watches_with_bookmarks_from_there() -> None:
    reply = scripted(
        lists=[
            listing(pod("a", version=1), version=7, more="token"),
            listing(pod("b", version=2), version=7),
        ],
        watches=[QUIET],
    )

    with FakeApiServer(reply) as server:
        selector = {"labelSelector": "gpu=true"}
        patient = WatchTiming(idle=30)
        with following(server.connection(), PATH, params=selector, timing=patient) as follower:
            follower.wait_told(("ADDED", "a"), ("ADDED", "b"))
            first, second, watch = server.wait_for_requests(3)
            assert follower.reflector.synced.is_set()

    assert first.params == {**selector, "limit": "500"}
    assert second.params == {**selector, "limit": "500", "continue": "token"}
    seconds = int(watch.params["timeoutSeconds"])
    assert 240 <= seconds <= 300
    assert watch.params == {
        **selector,
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "7",
        "timeoutSeconds": str(seconds),
    }


def test_a_silent_watch_is_resumed_from_the_last_bookmark_without_a_listing() -> None:
    reply = scripted(
        lists=[listing(version=7)],
        watches=[
            Stream([bookmark(30), Fault.HANG]),
            Stream([line("ADDED", pod("a", version=31)), Fault.HANG]),
        ],
    )

    timing = WatchTiming(idle=2)

    with (
        FakeApiServer(reply) as server,
        following(server.connection(), PATH, timing=timing) as follower,
    ):
        follower.wait_told(("ADDED", "a"))
        first, second, *_ = watches(server.requests)  # by now it may be idle again
        assert follower.reflector.relists == 0

    assert [watch.params["resourceVersion"] for watch in (first, second)] == ["7", "30"]
    # Not before the watch was idle for the time agreed on, and without a pause after it.
    assert second.at - first.at >= timing.idle


def test_a_line_cut_off_in_the_middle_is_read_again_in_full() -> None:
    whole = line("ADDED", pod("b", version=9))
    reply = scripted(
        lists=[listing(version=7)],
        watches=[
            Stream([line("ADDED", pod("a", version=8)), whole[:40], Fault.CUT]),
            Stream([whole[:40], whole[40:], Fault.HANG]),
        ],
    )

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        follower.wait_told(("ADDED", "a"), ("ADDED", "b"))
        requests = server.requests

    assert [request.params["resourceVersion"] for request in watches(requests)] == ["7", "8"]
    assert len(lists(requests)) == 1


def test_a_garbage_line_is_not_skipped_but_asked_for_again() -> None:
    after = line("ADDED", pod("after", version=10))
    reply = scripted(
        lists=[listing(version=7)],
        watches=[
            Stream([line("ADDED", pod("a", version=8)), b"<garbage>\n", after, Fault.HANG]),
            Stream([line("ADDED", pod("b", version=9)), after, Fault.HANG]),
        ],
    )

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        follower.wait_told(("ADDED", "a"), ("ADDED", "b"), ("ADDED", "after"))

        assert watches(server.requests)[1].params["resourceVersion"] == "8"


def test_garbage_that_stays_lets_the_last_contact_grow_old() -> None:
    poison = Stream([b"<garbage>\n", Fault.HANG])
    reply = scripted(lists=[listing(version=7)], watches=[poison])

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        server.wait_for_requests(4)
        contact = follower.reflector.last_contact
        requests = server.wait_for_requests(8)

        assert follower.reflector.last_contact == contact
    assert contact < requests[3].at


@pytest.mark.parametrize("gone", [refusal(410, "Expired"), Stream([error(410, "Expired")])])
def test_a_version_that_is_too_old_leads_to_a_new_listing(gone: Reply) -> None:
    reply = scripted(
        lists=[
            listing(pod("a", version=1), pod("b", version=2), version=7),
            listing(pod("b", version=12), version=20),
        ],
        watches=[gone, QUIET],
    )

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        follower.wait_told(("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("MODIFIED", "b"))
        requests = server.wait_for_requests(4)
        assert follower.reflector.relists == 1

    assert requests[3].params["resourceVersion"] == "20"


def test_a_listing_that_expires_between_pages_is_begun_again() -> None:
    reply = scripted(
        lists=[
            listing(pod("a", version=1), version=7, more="token"),
            refusal(410, "Expired"),
            listing(pod("b", version=8), version=9),
        ],
        watches=[QUIET],
    )

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        follower.wait_told(("ADDED", "b"))

        assert "continue" not in lists(server.requests)[2].params


@pytest.mark.parametrize("on_watch", [True, False])
def test_it_is_as_patient_as_a_busy_server_asks(on_watch: bool) -> None:
    busy = refusal(429, "TooManyRequests", Retry_After="1")
    good = listing(pod("a", version=1), version=7)
    reply = scripted(
        lists=[good] if on_watch else [busy, good],
        watches=[busy, QUIET] if on_watch else [QUIET],
    )

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        follower.wait_told(("ADDED", "a"))
        requests = server.wait_for_requests(3)
        assert follower.reflector.relists == 0

    refused, again = (1, 2) if on_watch else (0, 1)
    assert requests[again].at - requests[refused].at >= 1
    assert len(lists(requests)) == (1 if on_watch else 2)


def test_a_rotated_token_is_used_after_a_refusal() -> None:
    tokens = iter(["Bearer old", "Bearer old"])
    good = listing(pod("a", version=1), version=7)

    def reply(request: Request) -> Reply:
        if request.headers["Authorization"] == "Bearer old":
            return refusal(401, "Unauthorized")
        return QUIET if request.is_watch else good

    with FakeApiServer(reply) as server:
        connection = server.connection(lambda: next(tokens, "Bearer new"))
        with following(connection, PATH) as follower:
            follower.wait_told(("ADDED", "a"))


@pytest.mark.parametrize("status", [500, 503, 403])
def test_other_refusals_of_a_watch_are_retried_from_where_it_was(status: int) -> None:
    reply = scripted(
        lists=[listing(version=7)],
        watches=[
            refusal(status),
            Stream([error(status)]),
            Stream([line("ADDED", pod("a", version=8)), Fault.HANG]),
        ],
    )

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        follower.wait_told(("ADDED", "a"))

        assert follower.reflector.relists == 0


def test_a_server_that_ends_every_watch_at_once_is_not_hammered() -> None:
    reply = scripted(lists=[listing(version=7)], watches=[Stream([])])
    timing = WatchTiming(backoff_first=0.4, backoff_cap=10)

    with (
        FakeApiServer(reply) as server,
        following(server.connection(), PATH, timing=timing) as follower,
    ):
        requests = watches(server.wait_for_requests(4))
        assert follower.told == []

    # At least half of 0.4, then half of 0.8: pauses that double.
    assert requests[1].at - requests[0].at >= 0.2
    assert requests[2].at - requests[1].at >= 0.4


def test_an_orderly_end_is_followed_by_a_watch_at_once() -> None:
    reply = scripted(
        lists=[listing(version=7)],
        watches=[
            Stream([line("ADDED", pod("a", version=8))]),
            Stream([line("DELETED", pod("a", version=9)), Fault.HANG]),
        ],
    )
    slow = WatchTiming(backoff_first=60, backoff_cap=60)

    with (
        FakeApiServer(reply) as server,
        following(server.connection(), PATH, timing=slow) as follower,
    ):
        follower.wait_told(("ADDED", "a"), ("DELETED", "a"))


def test_close_wakes_a_reader_that_waits_for_a_line() -> None:
    reply = scripted(lists=[listing(version=7)], watches=[Stream([bookmark(8), Fault.HANG])])
    patient = WatchTiming(idle=600)

    with (
        FakeApiServer(reply) as server,
        following(server.connection(), PATH, timing=patient) as follower,
    ):
        server.wait_for_requests(2)
        follower.stop.set()
        follower.reflector.close()
        follower.thread.join(10)

        assert not follower.thread.is_alive()


def test_a_failing_handler_ends_the_run() -> None:
    def fail(event: Event[Pod]) -> None:
        raise LookupError(event.object.metadata.name)

    reply = scripted(lists=[listing(pod("a", version=1), version=7)], watches=[QUIET])

    with FakeApiServer(reply) as server:
        client = Client(server.connection())
        reflector = Reflector(client, PATH, type=Pod, on_event=fail)
        with pytest.raises(LookupError):
            reflector.run(threading.Event())
        client.close()

    assert not reflector.synced.is_set()


def test_it_gets_through_a_server_that_is_not_there_at_first() -> None:
    bad: list[Reply] = [Fault.CUT, Answer(status=500, body=b"oops"), Answer(body=b"not JSON")]
    answers = iter(bad)
    good = listing(pod("a", version=1), version=7)

    def reply(request: Request) -> Reply:
        return QUIET if request.is_watch else next(answers, good)

    with FakeApiServer(reply) as server, following(server.connection(), PATH) as follower:
        follower.wait_told(("ADDED", "a"))
        assert follower.reflector.synced.wait(5)
