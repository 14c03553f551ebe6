"""An API server that misbehaves on request: real HTTP, for faults that a real one will not produce.

What a real kube-apiserver does when it is well is tested on a real one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from kube.connection import Connection


class Fault(Enum):
    """What can go wrong in the middle of an answer."""

    #: Not one more byte, but the connection stays open.
    HANG = auto()
    #: The connection ends without the last chunk.
    CUT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    at: float

    @property
    def is_watch(self) -> bool:
        return self.params.get("watch") == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An ordinary answer; `body` is sent as JSON unless it is bytes."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A chunked answer, piece by piece; it ends in order unless a fault comes first."""

    pieces: Iterable[bytes | Fault]


Reply = Answer | Stream | Fault


def refusal(status: int, reason: str = "", **headers: str) -> Answer:
    """Return a refusal as the API server words it."""
    body = {"kind": "Status", "status": "Failure", "code": status, "reason": reason}
    return Answer(
        status=status,
        body={**body, "message": f"fake says {reason or status}"},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


class FakeApiServer:
    """Answers each request with what `reply` returns for it, on a free loopback port."""

    def __init__(self, reply: Callable[[Request], Reply]) -> None:
        self._reply = reply
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._arrived = threading.Condition()
        self._requests: list[Request] = []
        #: Set when the server stops; hanging answers wait for it.
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[Request]:
        with self._arrived:
            return list(self._requests)

    def connection(self, authorization: Callable[[], str | None] = lambda: None) -> Connection:
        return Connection(server=self.url, authorization=authorization)

    def wait_for_requests(self, count: int, *, timeout: float = 30.0) -> list[Request]:
        """Return the requests so far once there are `count`."""
        with self._arrived:
            enough = self._arrived.wait_for(lambda: len(self._requests) >= count, timeout)
            assert enough, f"{len(self._requests)} of {count} requests came in {timeout} s"
            return list(self._requests)

    def answer(self, request: Request) -> Reply:
        with self._arrived:
            self._requests.append(request)
            self._arrived.notify_all()
        return self._reply(request)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()  # joins the threads of the requests


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, owner: FakeApiServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
            if self.owner.stopping.is_set():  # nobody else may end it any more
                end(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def end_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                end(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: clients that leave in the middle are what is tested here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""

    def _any_method(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(
            method=self.command,
            path=parts.path,
            params=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers=dict(self.headers),
            body=json.loads(body) if body else None,
            at=time.monotonic(),
        )
        match self.server.owner.answer(request):
            case Answer() as answer:
                self._send_answer(answer)
            case Stream(pieces):
                self._send_stream(pieces)
            case Fault() as fault:
                self._fail(fault)

    # The base class looks for these names.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any_method  # noqa: N815

    def _send_answer(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if "Date" in answer.headers:
            self.send_response_only(answer.status)
        else:
            self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_stream(self, pieces: Iterable[bytes | Fault]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            if isinstance(piece, Fault):
                self._fail(piece)
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _fail(self, fault: Fault) -> None:
        self.wfile.flush()
        if fault is Fault.HANG:
            self.server.owner.stopping.wait()
        self.close_connection = True
        end(self.connection)


def end(connection: socket.socket) -> None:
    """End a connection under whoever reads or writes on it."""
    with contextlib.suppress(OSError):  # the other side was faster
        connection.shutdown(socket.SHUT_RDWR)
