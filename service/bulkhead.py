"""Keeps threads free: requests of a kind that may wait for others must not take all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog

log = structlog.get_logger()


def at_most(
    app: WSGIApplication, number: int, *, path: str, refusal: bytes, content_type: str
) -> WSGIApplication:
    """Return `app` with at most `number` requests of `path` at once.

    Others are answered with 200 and `refusal` at once: waiting would take a thread as well.
    """
    free = threading.BoundedSemaphore(number)

    def limited(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != path:
            return app(environ, start_response)
        if not free.acquire(blocking=False):
            log.warning("too many requests at once", path=path, most=number)
            headers = [("Content-Type", content_type), ("Content-Length", str(len(refusal)))]
            start_response("200 OK", headers)
            return [refusal]
        try:
            return app(environ, start_response)
        finally:
            free.release()

    return limited
