"""What listings and watch lines change; no network."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from msgspec import convert

from kube.errors import ApiError, Gone, TooManyRequests
from kube.objects import Pod
from kube.watch import BadLine, Event, Mirror
from tests.kube.wire import bookmark, error, line, pod


def decoded(*pods: dict[str, object]) -> list[Pod]:
    return [convert(found, Pod) for found in pods]


def told(events: Iterable[Event[Pod]]) -> list[tuple[str, str]]:
    return [(event.kind.value, event.object.metadata.name) for event in events]


def listed(*pods: dict[str, object], version: str = "10") -> Mirror[Pod]:
    mirror = Mirror(Pod)
    mirror.relisted(decoded(*pods), version=version)
    return mirror


def test_the_first_listing_adds_everything() -> None:
    events = Mirror(Pod).relisted(decoded(pod("a", version=1), pod("b", version=2)), version="3")

    assert told(events) == [("ADDED", "a"), ("ADDED", "b")]


def test_a_second_listing_tells_only_the_difference_and_the_vanished_first() -> None:
    mirror = listed(pod("same", version=1), pod("gone", version=2), pod("changed", version=3))

    events = mirror.relisted(
        decoded(pod("new", version=12), pod("same", version=1), pod("changed", version=11)),
        version="20",
    )

    assert told(events) == [("DELETED", "gone"), ("ADDED", "new"), ("MODIFIED", "changed")]
    assert mirror.version == "20"


def test_an_object_created_anew_under_its_old_name_is_deleted_and_added() -> None:
    mirror = listed(pod("a", version=1, uid="first"))

    events = mirror.relisted(decoded(pod("a", version=12, uid="second")), version="20")

    assert told(events) == [("DELETED", "a"), ("ADDED", "a")]
    assert [event.object.metadata.uid for event in events] == ["first", "second"]


def test_lines_carry_the_version_on_and_normalise_the_kind() -> None:
    mirror = listed(pod("a", version=1))

    assert told(mirror.line(line("ADDED", pod("a", version=11)))) == [("MODIFIED", "a")]
    assert told(mirror.line(line("MODIFIED", pod("b", version=12)))) == [("ADDED", "b")]
    assert told(mirror.line(line("DELETED", pod("b", version=13)))) == [("DELETED", "b")]
    assert told(mirror.line(line("DELETED", pod("unknown", version=14)))) == []
    assert told(mirror.line(bookmark(99))) == []
    assert mirror.version == "99"
    assert len(mirror) == 1


def test_a_line_seen_before_changes_nothing() -> None:
    mirror = listed()
    mirror.line(line("ADDED", pod("a", version=11)))

    assert mirror.line(line("ADDED", pod("a", version=11))) == []


def test_error_lines_become_the_error_that_they_stand_for() -> None:
    mirror = listed(version="10")

    with pytest.raises(Gone):
        mirror.line(error(410, "Expired"))
    with pytest.raises(TooManyRequests) as refused:
        mirror.line(error(429, "TooManyRequests", retryAfterSeconds=7))
    with pytest.raises(ApiError) as nameless:
        mirror.line(line("ERROR", {}))

    assert refused.value.retry_after == 7
    assert nameless.value.status == 500
    assert mirror.version == "10"


@pytest.mark.parametrize(
    "bad",
    [
        b"<html>502 Bad Gateway</html>",
        b"{",
        b"null",
        b"[]",
        b'{"type":"ADDED"}',
        b'{"type":"ADDED","object":null}',
        b'{"type":"ADDED","object":{}}',
        b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}',
        b'{"type":"ADDED","object":{"metadata":{"name":7,"resourceVersion":"8"}}}',
        b'{"type":"BOOKMARK","object":{}}',
        b'{"type":"RESYNC","object":{}}',
        b'{"type":"ADDED","object":"\xff"}',
        json.dumps({"type": "MODIFIED", "object": pod("a", version=9)}).encode()[:-20],
    ],
)
def test_a_line_that_makes_no_sense_is_an_error_and_changes_nothing(bad: bytes) -> None:
    mirror = listed(pod("a", version=1), version="10")

    with pytest.raises(BadLine):
        mirror.line(bad)

    assert mirror.version == "10"
    assert len(mirror) == 1
