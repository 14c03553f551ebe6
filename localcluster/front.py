"""A TCP front that stands for a Service: connections go to a replica that says it is ready.

As kube-proxy does, it chooses when a connection is opened and then carries bytes, whatever they
are: it closes nothing by itself, and a replica that is no longer ready keeps the connections that
it has. Where no replica is ready, a new connection is reset.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import urllib3

from localcluster.carrying import carry, shut

_LOOPBACK = "127.0.0.1"
#: Seconds for opening a connection to a replica that was ready a moment ago.
_CONNECT_TIMEOUT = 5.0
#: struct linger: on, for no time at all; closing then resets the connection.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One replica: the port on which it serves, and the URL that answers 200 while it is ready."""

    port: int
    ready_url: str


class Front:
    """Serves on a loopback port as long as the context lasts.

    Readiness is asked for every `period` seconds, with as much patience: kubelet's readinessProbe
    with periodSeconds and timeoutSeconds of that size and a failureThreshold of one.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, period: float = 1.0) -> None:
        self._endpoints = tuple(endpoints)
        self._period = period
        self._ready = dict.fromkeys(self._endpoints, False)
        self._turns = itertools.count()
        self._stop = threading.Event()
        self._lock = threading.Lock()  # guards the next one
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((_LOOPBACK, 0), backlog=128)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    @property
    def ready(self) -> tuple[Endpoint, ...]:
        """The replicas among which new connections are shared out."""
        return tuple(endpoint for endpoint in self._endpoints if self._ready[endpoint])

    def __enter__(self) -> Self:
        self._begin("front-accept", self._accept)
        for endpoint in self._endpoints:
            self._begin(f"front-probe-{endpoint.port}", self._probe, endpoint)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        # Wakes the thread that waits in accept; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                shut(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _begin(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _probe(self, endpoint: Endpoint) -> None:
        with urllib3.PoolManager(retries=False, timeout=self._period) as pool:
            while not self._stop.is_set():
                try:
                    status = pool.request("GET", endpoint.ready_url).status
                except urllib3.exceptions.HTTPError:
                    status = None
                self._ready[endpoint] = status == HTTPStatus.OK
                self._stop.wait(self._period)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:  # the end
                return
            self._begin("front-connection", self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready = self.ready
            if not ready:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            endpoint = ready[next(self._turns) % len(ready)]
            try:
                server = socket.create_connection((_LOOPBACK, endpoint.port), _CONNECT_TIMEOUT)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            with server:
                server.settimeout(None)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        both = {client, server}
        with self._lock:
            if self._stop.is_set():
                return
            self._open |= both
        carry(client, server)
        with self._lock:
            self._open -= both
