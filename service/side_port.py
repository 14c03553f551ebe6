"""Health and metrics on a plain HTTP port of their own: probes bring no client certificate."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.logs import ERROR

Ready = Callable[[], str | None]
#: Returns content type and body.
Route = Callable[[], tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A GET for what the side port itself does not know; names of headers are in lower case."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back; length and content type are added to `headers`."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


#: Answers requests for whatever else there is; None: nothing there.
Site = Callable[[Request], Answer | None]

_TEXT = "text/plain; charset=utf-8"
#: Seconds that a peer has to send its request and to take the answer.
_TIMEOUT = 5.0
#: Fields of a query that are read at all.
_MOST_FIELDS = 16
#: Connections at once; for one more the oldest is closed, so that probes are always answered.
CONNECTIONS = 32

log = structlog.get_logger()


class _Server(ThreadingHTTPServer):
    """Has a thread for each of a few connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()  # guards the next one
        self._open: dict[socket.socket, None] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                # Its thread reads the end, and closes it.
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address
        log.debug("side port connection given up", **{ERROR: str(sys.exception())})


class SidePort:
    """Serves `/healthz`, `/readyz`, `/metrics` and extra GET routes from a thread of its own.

    `ready` returns None, or the reason why this process should get no traffic, which `/readyz`
    answers as 503. `site` is asked for every path that is none of these.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        ready: Ready,
        routes: Mapping[str, Route] | None = None,
        site: Site | None = None,
    ) -> None:
        self._address = (host, port)
        self._ready = ready
        self._site = site
        self._routes: dict[str, Route] = {
            "/healthz": lambda: (_TEXT, b"ok\n"),
            "/metrics": lambda: (CONTENT_TYPE_LATEST, generate_latest(registry)),
            **(routes or {}),
        }
        self._server: _Server | None = None

    def start(self) -> int:
        """Bind and serve; returns the port, which tells what port 0 became. Raises OSError."""
        server = _Server(self._address, self._handler(), bind_and_activate=True)
        self._server = server
        threading.Thread(target=server.serve_forever, name="side-port", daemon=True).start()
        port = int(server.server_address[1])
        log.info("health and metrics", host=self._address[0], port=port)
        return port

    def stop(self) -> None:
        """Close the port; harmless when it was never opened."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, request: Request) -> Answer:
        """Return what a GET gets."""
        if request.path == "/readyz":
            reason = self._ready()
            if reason is None:
                return Answer(status=200, content_type=_TEXT, body=b"ok\n")
            return Answer(status=503, content_type=_TEXT, body=f"{reason}\n".encode())
        route = self._routes.get(request.path)
        if route is not None:
            content_type, body = route()
            return Answer(status=200, content_type=content_type, body=body)
        found = self._site(request) if self._site is not None else None
        return found or Answer(status=404, content_type=_TEXT, body=b"not found\n")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT
            server_version = "gpudetour"
            sys_version = ""

            def do_GET(self) -> None:
                try:
                    request = _request(self.path, self.headers)
                except ValueError as error:
                    said = Answer(status=400, content_type=_TEXT, body=f"{error}\n".encode())
                else:
                    said = self._answered(request)
                self.send_response(said.status)
                self.send_header("Content-Type", said.content_type)
                self.send_header("Content-Length", str(len(said.body)))
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said.body)

            def _answered(self, request: Request) -> Answer:
                try:
                    return answer(request)
                except Exception:
                    log.exception("side port failed", path=self.path)
                    return Answer(status=500, content_type=_TEXT, body=b"internal error\n")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                log.debug("side port", message=format % args)

        return Handler


def _request(target: str, headers: Message) -> Request:
    """Read a request; of what a query says twice, the last counts. Raises `ValueError`."""
    parts = urlsplit(target)
    return Request(
        path=parts.path,
        query=dict(parse_qsl(parts.query, max_num_fields=_MOST_FIELDS)),
        headers={name.lower(): value for name, value in headers.items()},
    )
