"""Ends the process when a request is stuck: a refused connection is cheap for callers, silence not.

A caller that waits in its one loop, as kube-scheduler does, loses its whole timeout with every
request. A process that is hung as a whole is not our business: gunicorn's parent kills a worker
whose main loop gives no sign of life for 30 s.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog

from service.logs import SECONDS

#: Seconds between two looks.
_INTERVAL = 0.25

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Work:
    name: str
    thread: int
    age: float = 0.0


class Watchdog:
    """Watches requests; `limits` tells for each name how many seconds one may take.

    Age counts only while the watchdog itself runs, so a process that was stopped or starved of the
    processor does not take that for a stuck request when it goes on.
    """

    def __init__(
        self,
        limits: Mapping[str, float],
        *,
        end: Callable[[int], None] = os._exit,
        interval: float = _INTERVAL,
    ) -> None:
        self._limits = dict(limits)
        self._end = end
        self._interval = interval
        self._lock = threading.Lock()  # guards the next one
        self._running: set[_Work] = set()

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Watch what this thread does in the block; a name without a limit may take for ever."""
        work = _Work(name, threading.get_ident())
        with self._lock:
            self._running.add(work)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(work)

    def over(self, app: WSGIApplication) -> WSGIApplication:
        """Return `app` with every request watched under its path without the slash."""

        def watched(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            with self.watching(str(environ.get("PATH_INFO", "")).strip("/")):
                return app(environ, start_response)

        return watched

    def run(self, stop: threading.Event) -> None:
        """Look after the requests until `stop` is set, or end the process with exit code 1."""
        before = time.monotonic()
        while not stop.wait(self._interval):
            now = time.monotonic()
            stuck = self._look(min(now - before, 2 * self._interval))
            before = now
            if stuck is not None:
                self._give_up(stuck)

    def _look(self, passed: float) -> _Work | None:
        """Let time pass; return a request that has taken too much of it."""
        with self._lock:
            for work in self._running:
                work.age += passed
            late = (w for w in self._running if w.age > self._limits.get(w.name, float("inf")))
            return max(late, key=lambda work: work.age, default=None)

    def _give_up(self, work: _Work) -> None:
        # Before anything that takes a lock: the logger's may be what the request is stuck on.
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        frame = sys._current_frames().get(work.thread)  # noqa: SLF001 - documented, for this use
        stack = traceback.format_stack(frame) if frame is not None else []
        ending = threading.Timer(1.0, self._end, (1,))
        ending.daemon = True
        ending.start()
        log.error(
            "a request is stuck, ending the process",
            request=work.name,
            stack="".join(stack),
            **{SECONDS: round(work.age, 1)},
        )
        self._end(1)
        ending.cancel()
