"""Health and metrics on a plain HTTP port of their own: probes bring no client certificate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Ready = Callable[[], str | None]
#: Returns content type and body.
Route = Callable[[], tuple[str, bytes]]

_TEXT = "text/plain; charset=utf-8"
#: Seconds that a peer has to send its request and to take the answer.
_TIMEOUT = 5.0

log = structlog.get_logger()


class SidePort:
    """Serves `/healthz`, `/readyz`, `/metrics` and extra GET routes from a thread of its own.

    `ready` returns None, or the reason why this process should get no traffic, which `/readyz`
    answers as 503.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        ready: Ready,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        self._address = (host, port)
        self._ready = ready
        self._routes: dict[str, Route] = {
            "/healthz": lambda: (_TEXT, b"ok\n"),
            "/metrics": lambda: (CONTENT_TYPE_LATEST, generate_latest(registry)),
            **(routes or {}),
        }
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> int:
        """Bind and serve; returns the port, which tells what port 0 became. Raises OSError."""
        server = ThreadingHTTPServer(self._address, self._handler(), bind_and_activate=True)
        server.daemon_threads = True
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

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a GET of `path`."""
        if path == "/readyz":
            reason = self._ready()
            return (200, _TEXT, b"ok\n") if reason is None else (503, _TEXT, f"{reason}\n".encode())
        route = self._routes.get(path)
        if route is None:
            return 404, _TEXT, b"not found\n"
        return 200, *route()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT
            server_version = "gpudetour"
            sys_version = ""

            def do_GET(self) -> None:
                try:
                    status, content_type, body = answer(urlsplit(self.path).path)
                except Exception:
                    log.exception("side port failed", path=self.path)
                    status, content_type, body = 500, _TEXT, b"internal error\n"
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                log.debug("side port", message=format % args)

        return Handler
