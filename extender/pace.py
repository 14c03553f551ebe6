"""Keeps the scheduler's loop from running far ahead of the binds that it started.

kube-scheduler filters the next pod while earlier ones are still being bound, and Go keeps no more
than two idle connections to an extender: when many binds pile up, each opens a connection, which
is closed after its answer. A TLS handshake costs both sides more than a bind does. So the answer
to filter waits a moment while many binds are under way; they end sooner for it, and in the end so
does the whole queue. Measured in `make bench`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from extender.metrics import Verb


class Pace:
    """Counts binds under way; thread-safe. `most` may be under way when a filter is answered."""

    def __init__(self, most: int, *, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._changed = threading.Condition(threading.Lock())  # guards the next one
        self._binds = 0

    @property
    def under_way(self) -> int:
        """How many binds there are now."""
        return self._binds

    @contextmanager
    def bind(self) -> Iterator[None]:
        """Count what is done inside as one bind."""
        with self._changed:
            self._binds += 1
        try:
            yield
        finally:
            with self._changed:
                self._binds -= 1
                self._changed.notify_all()

    def keep(self) -> float:
        """Wait until few enough binds are under way, or patience ends; return the seconds.

        Binds that hang, because the API server does, must not stop the scheduler's loop for long:
        it places pods without GPUs too.
        """
        started = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._binds < self._most, self._patience)
        return time.monotonic() - started

    def over(self, app: WSGIApplication, *, waited: Callable[[float], object]) -> WSGIApplication:
        """Return `app` with its binds counted and its filters held back; tells how long each was.

        The wait comes before all else of a filter, so that it is decided on what is true after it.
        """

        def paced(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            verb = str(environ.get("PATH_INFO", "")).strip("/")
            if verb == Verb.BIND:
                with self.bind():
                    return app(environ, start_response)
            if verb == Verb.FILTER:
                waited(self.keep())
            return app(environ, start_response)

        return paced
