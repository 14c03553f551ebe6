"""Keeps kube-scheduler from closing connections that it will want again a moment later.

Go keeps two idle connections to an extender and closes every further one when it has its answer.
Binds come and end in waves, so that every third of them would open another: a TLS handshake costs
both sides more than a bind does. Where two are idle already, the answer to a bind therefore waits
until one of those is taken. The pod is bound by then, and kube-scheduler's loop does not wait for
that answer. Measured in `make bench`.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakSet
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from extender.metrics import Verb

#: net/http DefaultMaxIdleConnsPerHost.
_IDLE = 2
#: Answers that may wait at once; each of them keeps a thread of the server.
_MOST = 4


class Connections:
    """Counts the open connections of each peer, by its address, and the binds on them.

    Thread-safe. An answer waits for `patience` seconds at most.
    """

    def __init__(self, *, patience: float) -> None:
        self._patience = patience
        self._changed = threading.Condition(threading.Lock())  # guards the rest
        self._used: defaultdict[str, WeakSet[socket.socket]] = defaultdict(WeakSet)
        self._binds: Counter[str] = Counter()
        self._waiting = 0

    def over(self, app: WSGIApplication) -> WSGIApplication:
        """Return `app` whose answers to binds wait where they should."""

        def kept(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            peer = str(environ.get("REMOTE_ADDR", ""))
            sock = environ.get("gunicorn.socket")
            if isinstance(sock, socket.socket):
                with self._changed:
                    self._used[peer].add(sock)
            if environ.get("PATH_INFO") != f"/{Verb.BIND.value}":
                return app(environ, start_response)
            with self._bind(peer):
                return app(environ, start_response)

        return kept

    @contextmanager
    def _bind(self, peer: str) -> Iterator[None]:
        with self._changed:
            self._binds[peer] += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                if self._waiting < _MOST:
                    self._waiting += 1
                    self._changed.wait_for(lambda: self._idle(peer) < _IDLE, self._patience)
                    self._waiting -= 1
                self._binds[peer] -= 1

    def _idle(self, peer: str) -> int:
        """Return how many are idle, or will be before this answer is there: filter's soon is."""
        still_open = sum(sock.fileno() >= 0 for sock in self._used[peer])
        return still_open - self._binds[peer]
