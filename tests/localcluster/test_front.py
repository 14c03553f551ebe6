"""The front that stands for a Service: who gets a connection, and who keeps one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from localcluster.front import Endpoint, Front
from localcluster.waiting import until


class Replica:
    """Says its name to whoever connects, then repeats what it hears; readiness is set by hand."""

    def __init__(self, name: str, *, ready: bool) -> None:
        self.name = name
        self.ready = ready
        replica = self

        class Probe(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if replica.ready else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._probe = ThreadingHTTPServer(("127.0.0.1", 0), Probe)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [
            threading.Thread(target=self._probe.serve_forever, kwargs={"poll_interval": 0.01}),
            threading.Thread(target=self._accept),
        ]
        for thread in self._threads:
            thread.start()
        self.endpoint = Endpoint(
            port=self._listener.getsockname()[1],
            ready_url=f"http://127.0.0.1:{self._probe.server_address[1]}/readyz",
        )

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._echo, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(self.name.encode())
                while heard := connection.recv(4096):
                    connection.sendall(heard)
            except OSError:
                return

    def die(self) -> None:
        """Close everything as the kernel does for a killed process."""
        self._probe.shutdown()
        self._probe.server_close()
        for connection in (self._listener, *self._connections):
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def fronted(*ready: bool) -> Iterator[tuple[Front, list[Replica]]]:
    with ExitStack() as stack:
        replicas = [Replica(name, ready=one) for name, one in zip("abc", ready, strict=False)]
        for replica in replicas:
            stack.callback(replica.die)
        # It is also how long a replica may take to answer, which one missed probe costs its place.
        front = Front([replica.endpoint for replica in replicas], period=1.0)
        yield stack.enter_context(front), replicas


def until_ready(front: Front, *replicas: Replica) -> None:
    wanted = tuple(replica.endpoint for replica in replicas)
    until(lambda: front.ready == wanted, timeout=30, what=f"{len(wanted)} replicas ready")


def connect(front: Front) -> socket.socket:
    return socket.create_connection(("127.0.0.1", front.port), 10)


def greeting(front: Front) -> str:
    with connect(front) as connection:
        return connection.recv(1).decode()


def test_new_connections_follow_readiness() -> None:
    with fronted(True, False) as (front, (a, b)):
        until_ready(front, a)
        assert {greeting(front) for _ in range(4)} == {"a"}

        a.ready, b.ready = False, True
        until_ready(front, b)
        assert {greeting(front) for _ in range(4)} == {"b"}

        a.ready = True
        until_ready(front, a, b)
        assert {greeting(front) for _ in range(4)} == {"a", "b"}


def test_a_connection_stays_with_a_replica_that_is_no_longer_ready() -> None:
    with fronted(True, True) as (front, (a, b)):
        until_ready(front, a, b)
        with connect(front) as kept:
            mine = kept.recv(1).decode()
            a.ready = b.ready = False
            until_ready(front)
            kept.sendall(b"still there")

            assert mine in "ab"
            assert kept.recv(64) == b"still there"


def test_without_a_ready_replica_connections_are_reset() -> None:
    # The reset may come while we connect still.
    with (
        fronted(False, False) as (front, _),
        pytest.raises(ConnectionResetError),
        connect(front) as connection,
    ):
        connection.recv(1)


def test_a_replica_that_dies_ends_its_connections_and_gets_no_more() -> None:
    with fronted(True, False) as (front, (a, b)):
        until_ready(front, a)
        with connect(front) as kept:
            assert kept.recv(1) == b"a"
            b.ready = True
            a.die()

            assert kept.recv(1) == b""
        until_ready(front, b)
        assert greeting(front) == "b"


def test_much_passes_unharmed_and_a_half_closed_connection_goes_on() -> None:
    sent = bytes(range(256)) * 8192
    with fronted(True) as (front, (a,)):
        until_ready(front, a)
        with connect(front) as connection:
            writer = threading.Thread(target=connection.sendall, args=(sent,))
            writer.start()
            heard = connection.recv(1)
            while len(heard) < len(sent) + 1:
                heard += connection.recv(64 * 1024)
            writer.join(10)
            connection.shutdown(socket.SHUT_WR)

            assert heard == b"a" + sent
            assert connection.recv(1) == b""
