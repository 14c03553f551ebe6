"""A small server on `service`, run as a process of its own: `python -m tests.service.echo JSON`."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog

from service import logs
from service.http import ServerSettings, serve
from service.lifecycle import Lifecycle
from service.tls import peer_common_name
from service.watchdog import Watchdog


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer the body, and tell who called; never answer `/stuck`."""
    if environ["PATH_INFO"] == "/stuck":
        threading.Event().wait()
    body = environ["wsgi.input"].read()
    headers = [
        ("Content-Length", str(len(body))),
        ("Caller", peer_common_name(environ) or "nobody"),
    ]
    start_response("200 OK", headers)
    return [body]


def main() -> None:
    options = json.loads(sys.argv[1])
    ends_early = options.pop("thread_ends_early", False)
    logs.configure(level="debug", json=True)
    log = structlog.get_logger()
    lifecycle = Lifecycle()

    def work(stop: threading.Event) -> None:
        if not ends_early:
            stop.wait()

    watchdog = Watchdog({"stuck": 0.5})

    def on_start() -> None:
        lifecycle.spawn("work", work)
        lifecycle.spawn("watchdog", watchdog.run)
        log.info("started")

    def on_stop() -> None:
        lifecycle.shutdown()
        log.info("stopped")

    serve(
        watchdog.over(app),
        ServerSettings(host="127.0.0.1", port=0, **options),
        on_start=on_start,
        on_stop=on_stop,
        on_drain=lambda: log.info("told to drain"),
    )


if __name__ == "__main__":
    main()
