"""Requests that wait leave threads for others."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from wsgiref.types import StartResponse, WSGIEnvironment

from structlog.testing import capture_logs

from service.bulkhead import at_most


def call(app: object, path: str) -> bytes:
    environ: WSGIEnvironment = {"PATH_INFO": path}
    status: list[str] = []
    assert callable(app)
    answer = b"".join(app(environ, lambda line, _headers: status.append(line)))
    assert status == ["200 OK"]
    return answer


def test_one_more_than_allowed_is_refused_and_other_paths_are_not_counted() -> None:
    inside, leave = threading.Semaphore(0), threading.Event()

    def slow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/bind":
            inside.release()
            leave.wait()
        return [b"done"]

    app = at_most(slow, 2, path="/bind", refusal=b"busy", content_type="text/plain")
    with ThreadPoolExecutor() as pool:
        try:
            waiting = [pool.submit(call, app, "/bind") for _ in range(2)]
            for _ in waiting:
                inside.acquire()
            with capture_logs() as records:
                assert call(app, "/bind") == b"busy"
            assert call(app, "/filter") == b"done"
        finally:
            leave.set()
        assert [future.result() for future in waiting] == [b"done", b"done"]

    assert [record["event"] for record in records] == ["too many requests at once"]
    assert call(app, "/bind") == b"done"


def test_a_request_that_fails_gives_its_place_back() -> None:
    def broken(_environ: WSGIEnvironment, _start: StartResponse) -> Iterable[bytes]:
        raise RuntimeError

    app = at_most(broken, 1, path="/bind", refusal=b"busy", content_type="text/plain")
    for _ in range(3):
        try:
            call(app, "/bind")
        except RuntimeError:
            continue
        raise AssertionError("refused")
