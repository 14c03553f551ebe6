"""Stands between one extender and the API server, and keeps chosen requests on their way.

What is not chosen passes as it is. So a test can strike between any two steps of a bind, and the
extender needs to know nothing of it.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import urllib3

from localcluster.pki import KeyPair
from tests.ha.traps import Request, Trap, Wanted, Where, binding, config_map, renewal, watch

_LOOPBACK = "127.0.0.1"
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "host"})
_CHUNK = 64 * 1024


class Interceptor:
    """An HTTPS server that carries every request on to the API server; a context manager."""

    def __init__(self, server: str, *, ca_file: Path, identity: KeyPair) -> None:
        """`identity` is what it shows to the extender; `ca_file` proves the API server."""
        target = urlsplit(server)
        self._pool = urllib3.HTTPSConnectionPool(
            str(target.hostname),
            target.port,
            ca_certs=str(ca_file),
            maxsize=64,
            timeout=urllib3.Timeout(connect=5, read=None),
            retries=False,
        )
        self._lock = threading.Lock()  # guards the next four
        self._traps: list[Trap] = []
        self._answers: Counter[tuple[Wanted, int]] = Counter()
        self._connections: set[socket.socket] = set()
        self._watches: set[socket.socket] = set()
        self._server = _Server((_LOOPBACK, 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.key)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    @property
    def url(self) -> str:
        """Where the extender finds it."""
        return f"https://{_LOOPBACK}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.let_go()
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            _shut(self._connections)
        self._server.server_close()
        self._pool.close()

    def keep(self, wanted: Wanted, where: Where = Where.BEFORE, *, count: int = 1) -> Trap:
        """Set a trap for the next `count` requests of a kind."""
        trap = Trap(wanted, where, count)
        with self._lock:
            self._traps.append(trap)
        return trap

    def let_go(self) -> None:
        """Open every trap and set no more."""
        with self._lock:
            traps, self._traps = self._traps, []
        for trap in traps:
            trap.pass_on()

    def cut_watches(self) -> int:
        """End every watch in the middle; tell how many."""
        with self._lock:
            return _shut(self._watches)

    def answered(self, wanted: Wanted, status: int) -> int:
        """How many requests of a kind the API server answered with that status."""
        with self._lock:
            return self._answers[wanted, status]

    def _passes(self, request: Request, where: Where) -> bool:
        with self._lock:
            traps = [trap for trap in self._traps if trap.where is where]
        kept = next((trap for trap in traps if trap.keeps(request)), None)
        return kept is None or kept.fate()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        interceptor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                with interceptor._lock:
                    interceptor._connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                with interceptor._lock:
                    interceptor._connections.discard(self.request)
                super().finish()

            def _carry(self) -> None:
                interceptor._carry(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _carry  # noqa: N815 - http.server's

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _carry(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path, _, query = handler.path.partition("?")
        asked = parse_qs(query)
        request = Request(
            method=handler.command, path=path, watch="watch" in asked, dry_run="dryRun" in asked
        )
        # Until proven otherwise: what was not answered whole must not look as if it were.
        handler.close_connection = True
        if not self._passes(request, Where.BEFORE):
            return
        try:
            answer = self._forward(handler, body)
        except (urllib3.exceptions.HTTPError, OSError):
            return
        try:
            self._note(request, answer.status)
            if request.watch and answer.status == 200:
                self._stream(handler, answer)
            else:
                self._answer(handler, request, answer)
        except (urllib3.exceptions.HTTPError, OSError):
            return
        finally:
            answer.close()

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> urllib3.BaseHTTPResponse:
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in _HOP_BY_HOP}
        return self._pool.urlopen(
            handler.command,
            handler.path,
            body=body or None,
            headers=headers,
            preload_content=False,
            decode_content=False,
        )

    def _note(self, request: Request, status: int) -> None:
        kinds = (config_map, binding, renewal, watch)
        with self._lock:
            self._answers.update((kind, status) for kind in kinds if kind(request))

    def _answer(
        self, handler: BaseHTTPRequestHandler, request: Request, answer: urllib3.BaseHTTPResponse
    ) -> None:
        data = answer.data
        if not self._passes(request, Where.AFTER):
            return
        _head(handler, answer, {"Content-Length": str(len(data))})
        handler.wfile.write(data)
        handler.close_connection = False

    def _stream(self, handler: BaseHTTPRequestHandler, answer: urllib3.BaseHTTPResponse) -> None:
        connection: socket.socket = handler.connection
        upstream: Any = getattr(answer.connection, "sock", None)
        both = {connection} | ({upstream} if upstream is not None else set())
        with self._lock:
            self._watches |= both
            self._connections |= both
        try:
            _head(handler, answer, {"Transfer-Encoding": "chunked"})
            for chunk in answer.stream(_CHUNK, decode_content=False):
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            handler.wfile.write(b"0\r\n\r\n")
        finally:
            with self._lock:
                self._watches -= both
                self._connections -= both


class _Server(ThreadingHTTPServer):
    """Threads that are joined at the end, and silence about connections that break."""

    daemon_threads = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections break here on purpose."""


def _head(
    handler: BaseHTTPRequestHandler, answer: urllib3.BaseHTTPResponse, more: dict[str, str]
) -> None:
    handler.send_response_only(answer.status)
    kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
    for name, value in {**kept, **more}.items():
        handler.send_header(name, value)
    handler.end_headers()


def _shut(connections: Iterable[socket.socket]) -> int:
    count = 0
    for connection in connections:
        with suppress(OSError):  # not connected any more
            # Not SSLSocket.shutdown: it drops the TLS state that a reader is using.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
            count += 1
    return count
