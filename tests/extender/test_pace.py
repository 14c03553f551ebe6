"""How filter waits for binds that are under way."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from extender.pace import Pace

LONG = 30.0


def test_with_few_binds_under_way_nobody_waits() -> None:
    pace = Pace(2, patience=LONG)

    with pace.bind():
        assert pace.keep() < LONG


def test_the_end_of_a_bind_ends_the_wait() -> None:
    pace, begun, end = Pace(1, patience=LONG), threading.Event(), threading.Event()

    def bind() -> None:
        with pace.bind():
            begun.set()
            end.wait(LONG)

    binder = threading.Thread(target=bind)
    binder.start()
    assert begun.wait(LONG)
    waited: list[float] = []
    waiter = threading.Thread(target=lambda: waited.append(pace.keep()))
    waiter.start()
    end.set()
    waiter.join(LONG)
    binder.join(LONG)

    assert waited
    assert waited[0] < LONG


def test_binds_that_hang_hold_nobody_up_for_long() -> None:
    pace = Pace(1, patience=0.05)

    with ExitStack() as hanging:
        for _ in range(3):
            hanging.enter_context(pace.bind())
        assert 0.05 <= pace.keep() < LONG


def test_a_bind_that_fails_counts_no_longer() -> None:
    pace = Pace(1, patience=LONG)

    def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError), pace.bind():
        fails()

    assert pace.keep() < LONG


@pytest.mark.parametrize(("path", "under_way"), [("/bind", 1), ("/filter", 0), ("/healthz", 0)])
def test_requests_are_told_apart_by_their_path(path: str, under_way: int) -> None:
    pace = Pace(1, patience=0)
    waits: list[float] = []
    seen: list[int] = []

    def app(_environ: WSGIEnvironment, _start: StartResponse) -> Iterable[bytes]:
        seen.append(pace.under_way)
        return []

    environ: WSGIEnvironment = {"PATH_INFO": path}
    list(pace.over(app, waited=waits.append)(environ, lambda *_: lambda _: None))

    assert (seen, len(waits)) == ([under_way], int(path == "/filter"))
    assert pace.under_way == 0
