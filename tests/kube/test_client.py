"""How calls become requests, and refusals and faults become errors."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from kube.client import MERGE_PATCH, BadAnswer, Client
from kube.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Gone,
    IdleTimeout,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from kube.objects import Lease, LeaseSpec, Pod
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, Stream, refusal
from tests.kube.wire import PATH, listing, pod


def always(reply: Reply) -> Callable[[Request], Reply]:
    return lambda _: reply


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, ApiError),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (422, Invalid),
        (429, TooManyRequests),
        (500, ApiError),
        (302, ApiError),
    ],
)
def test_a_refusal_becomes_the_error_of_its_status(status: int, error: type[ApiError]) -> None:
    with FakeApiServer(always(refusal(status, "Because"))) as server:
        client = Client(server.connection())
        with pytest.raises(ApiError) as refused:
            client.get("/x")
        client.close()

    assert type(refused.value) is error
    assert refused.value.status == status
    assert refused.value.reason == "Because"


@pytest.mark.parametrize(
    "body", [b"<html>" + b"x" * 100_000, b'{"message":"' + b"x" * 100_000 + b'"}', b"\xff\x00", b""]
)
def test_the_text_of_a_foreign_server_is_cut(body: bytes) -> None:
    with FakeApiServer(always(Answer(status=502, body=body))) as server:
        client = Client(server.connection())
        with pytest.raises(ApiError) as refused:
            client.get("/x")
        client.close()

    assert refused.value.reason == "Bad Gateway"
    assert len(str(refused.value)) < 1200


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("999999", 300),
        ("9" * 500, None),
        ("\u00b2", None),
        ("-1", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_and_bounded(header: str, seconds: float | None) -> None:
    with FakeApiServer(always(refusal(429, Retry_After=header))) as server:
        client = Client(server.connection())
        with pytest.raises(TooManyRequests) as refused:
            client.get("/x")
        client.close()

    assert refused.value.retry_after == seconds


@pytest.mark.parametrize("body", [b"", b"oops", b"[]", b'{"metadata":7}', b"\xff"])
def test_an_answer_of_another_shape_is_an_error_of_its_own(body: bytes) -> None:
    with FakeApiServer(always(Answer(body=body))) as server:
        client = Client(server.connection())
        with pytest.raises(BadAnswer, match="GET /x"):
            client.get("/x", type=Pod)
        client.close()


@pytest.mark.parametrize("fault", list(Fault))
def test_a_server_that_does_not_answer_is_a_failed_connection(fault: Fault) -> None:
    with FakeApiServer(always(fault)) as server:
        client = Client(server.connection()).with_timeout(0.3)
        with pytest.raises(ConnectionFailed, match="GET /x"):
            client.get("/x")
        client.close()


def test_a_refused_connection_is_a_failed_connection() -> None:
    with FakeApiServer(always(Answer())) as server:
        connection = server.connection()

    with pytest.raises(ConnectionFailed):
        Client(connection).get("/x")


def test_a_token_that_cannot_be_read_is_a_failed_connection() -> None:
    def unreadable() -> str:
        raise FileNotFoundError("token")

    with FakeApiServer(always(Answer())) as server, pytest.raises(ConnectionFailed, match="token"):
        Client(server.connection(unreadable)).get("/x")


def test_each_call_is_the_request_that_the_api_expects() -> None:
    spec = LeaseSpec(holder_identity="me")
    with FakeApiServer(always(Answer())) as server:
        client = Client(server.connection(lambda: "Bearer t"))
        client.get("/a", params={"fieldSelector": "spec.nodeName=n 1"})
        client.create("/b", Lease(spec=spec), params={"dryRun": "All"})
        client.replace("/c", Lease())
        client.patch("/d", {"spec": spec}, content_type=MERGE_PATCH)
        client.apply("/e", {"kind": "Node"}, field_manager="agent", force=True)
        client.delete("/f")
        client.close()
        requests = server.requests

    assert [(r.method, r.path, r.params, r.body) for r in requests] == [
        ("GET", "/a", {"fieldSelector": "spec.nodeName=n 1"}, None),
        ("POST", "/b", {"dryRun": "All"}, {"spec": {"holderIdentity": "me"}}),
        ("PUT", "/c", {}, {}),
        ("PATCH", "/d", {}, {"spec": {"holderIdentity": "me"}}),
        ("PATCH", "/e", {"fieldManager": "agent", "force": "true"}, {"kind": "Node"}),
        ("DELETE", "/f", {}, None),
    ]
    assert {r.headers["Authorization"] for r in requests} == {"Bearer t"}
    assert [r.headers.get("Content-Type") for r in requests] == [
        None,
        "application/json",
        "application/json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
        None,
    ]


def test_a_list_of_nothing_may_be_null() -> None:
    empty = Answer(body={"metadata": {"resourceVersion": "3"}, "items": None})
    with FakeApiServer(always(empty)) as server:
        client = Client(server.connection())
        found = client.list_all(PATH, type=Pod)
        client.close()

    assert found.items == []
    assert found.version == "3"


def test_all_pages_are_read_and_the_version_is_that_of_the_last() -> None:
    pages = [
        listing(pod("a", version=1), version=7, more="2"),
        listing(pod("b", version=2), version=7, more="3"),
        listing(pod("c", version=3), version=7),
    ]
    with FakeApiServer(lambda r: pages[int(r.params.get("continue", "1")) - 1]) as server:
        client = Client(server.connection())
        found = client.list_all(PATH, type=Pod)
        client.close()

    assert [each.metadata.name for each in found.items] == ["a", "b", "c"]
    assert found.version == "7"


def test_the_timeout_of_one_user_is_not_that_of_another() -> None:
    with FakeApiServer(always(Fault.HANG)) as server:
        client = Client(server.connection(), timeout=30)
        hasty = client.with_timeout(1)
        with pytest.raises(ConnectionFailed):
            hasty.get("/x")
        with pytest.raises(ConnectionFailed, match=r"read timeout=(0\.|1)"):
            hasty.get("/x")
        client.close()


def test_a_stream_gives_whole_lines_however_they_are_cut() -> None:
    pieces = [b"one\ntw", b"o", b"\n\nthree\n", b"cut off"]
    with FakeApiServer(always(Stream(pieces))) as server:
        client = Client(server.connection())
        lines = list(client.stream("/x", params={}, idle_timeout=5))
        client.close()

    assert lines == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.HANG, IdleTimeout), (Fault.CUT, ConnectionFailed)]
)
def test_a_stream_that_ends_out_of_order_says_so(
    fault: Fault, error: type[ConnectionFailed]
) -> None:
    with FakeApiServer(always(Stream([b"one\n", fault]))) as server:
        client = Client(server.connection())
        lines = iter(client.stream("/x", params={}, idle_timeout=2))
        assert next(lines) == b"one"
        with pytest.raises(ConnectionFailed) as failed:
            next(lines)
        client.close()

    assert type(failed.value) is error


def test_the_connection_of_an_abandoned_stream_is_not_used_again() -> None:
    numbers = count()

    def reply(request: Request) -> Reply:
        if request.path == "/watch":
            return Stream([b"line\n", Fault.HANG])
        return Answer(body={"n": next(numbers)})

    with FakeApiServer(reply) as server:
        client = Client(server.connection(), timeout=5)
        for expected in range(3):
            lines = iter(client.stream("/watch", params={}, idle_timeout=5))
            assert next(lines) == b"line"
            lines.close()  # type: ignore[attr-defined]
            assert client.get("/x") == {"n": expected}
        client.close()
