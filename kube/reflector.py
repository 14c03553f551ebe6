"""Keeps a handler informed of every change of a collection: list, watch, resume, list again.

What a listing or a line means is decided in `kube.watch`; here are the calls, the waiting and the
patience with the API server. Handlers fold events into their own state and do no IO.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from kube.backoff import Backoff
from kube.client import Client, Params, Stream
from kube.errors import ApiError, Forbidden, IdleTimeout, KubeError, TooManyRequests, Unauthorized
from kube.watch import Event, EventKind, HasMetadata, Mirror

__all__ = ["Event", "EventKind", "Reflector", "WatchTiming"]

T = TypeVar("T", bound=HasMetadata)

_log = structlog.get_logger(__name__)

#: A server that ends watches sooner than this, and says nothing in them, is not well (client-go's
#: "very short watch").
_SHORT_WATCH = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTiming:
    """Seconds. The defaults suit a real API server; tests are less patient."""

    #: How long the server is asked to keep a watch open; jittered so that not all end together.
    open_for: tuple[float, float] = (240.0, 300.0)
    #: Silence after which a watch is opened anew. Bookmarks come about once a minute, but are
    #: promised never, so this is ordinary.
    idle: float = 90.0
    backoff_first: float = 0.5
    backoff_cap: float = 30.0


class Reflector(Generic[T]):
    """Calls `on_event`, on the thread of `run`, with every change of a collection, in order.

    The handler sees each object as ADDED, MODIFIED any number of times, then DELETED, whatever
    happens to the connection; changes that cancelled each other out while it was cut may be left
    out. An exception of the handler ends `run`.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        type: type[T],  # noqa: A002 - as `Client.get`
        on_event: Callable[[Event[T]], None],
        params: Params | None = None,
        timing: WatchTiming | None = None,
    ) -> None:
        self._client = client
        self._path = path
        self._type = type
        self._on_event = on_event
        self._params = dict(params or {})
        self._timing = timing or WatchTiming()
        self._mirror = Mirror(type)
        self._backoff = Backoff(first=self._timing.backoff_first, cap=self._timing.backoff_cap)
        self._lock = threading.Lock()  # guards the next two
        self._stream: Stream | None = None
        self._closed = False
        self._lists = 0
        #: Set once the handler has been told of everything in the first listing; never cleared.
        self.synced = threading.Event()
        self._failing = False
        #: `time.monotonic()` when what we hold was last known to be current. In good health it is
        #: never older than `WatchTiming.idle` and a few seconds.
        self.last_contact = time.monotonic()

    @property
    def relists(self) -> int:
        """How often the collection had to be listed again after the first time."""
        return max(0, self._lists - 1)

    def run(self, stop: threading.Event) -> None:
        """Follow the collection until `stop` is set; `close` wakes it from a blocked read."""
        listed = False
        while not (stop.is_set() or self._closed):
            try:
                if not listed:
                    self._list()
                    listed = True
                self._watch(stop)
            except IdleTimeout:
                self._well()
                _log.debug("watch was idle, resuming it", path=self._path)
            except KubeError as error:
                listed = listed and not _must_relist(error)
                self._pause(error, stop, relist=not listed)

    def close(self) -> None:
        """End a read that `run` is blocked in; set its `stop` first. May be called by anyone."""
        with self._lock:
            self._closed = True
            stream = self._stream
        if stream is not None:
            stream.close()

    def _list(self) -> None:
        listing = self._client.list_all(self._path, type=self._type, params=self._params)
        self._touch()
        self._lists += 1
        self._tell(self._mirror.relisted(listing.items, version=listing.version))
        self.synced.set()

    def _watch(self, stop: threading.Event) -> None:
        opened = time.monotonic()
        lines = 0
        with closing(self._open()) as stream:
            if not self._failing:  # else it may well fail again at the line where it failed before
                self._touch()
            for line in stream:
                if stop.is_set() or self._closed:
                    return
                self._tell(self._mirror.line(line))
                self._touch()
                self._well()
                lines += 1
        if not lines and time.monotonic() - opened < _SHORT_WATCH and not self._closed:
            raise KubeError("the API server ended the watch at once")
        self._well()

    def _open(self) -> Stream:
        query = {
            **self._params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._mirror.version,
            "timeoutSeconds": str(int(random.uniform(*self._timing.open_for))),  # noqa: S311 - jitter
        }
        stream = self._client.stream(self._path, params=query, idle_timeout=self._timing.idle)
        with self._lock:
            self._stream = stream
            closed = self._closed
        if closed:  # between the call and here: nobody else will wake the read
            stream.close()
        return stream

    def _tell(self, events: list[Event[T]]) -> None:
        for event in events:
            self._on_event(event)

    def _touch(self) -> None:
        self.last_contact = time.monotonic()

    def _well(self) -> None:
        self._failing = False
        self._backoff.reset()

    def _pause(self, error: KubeError, stop: threading.Event, *, relist: bool) -> None:
        self._failing = True
        delay = self._backoff.next()
        if isinstance(error, ApiError) and error.retry_after is not None:
            delay += error.retry_after
        if not (stop.is_set() or self._closed):
            _log.warning(
                "lost touch with the API server",
                path=self._path,
                error=str(error),
                relist=relist,
                retry_seconds=round(delay, 1),
            )
        stop.wait(delay)


def _must_relist(error: KubeError) -> bool:
    """Tell whether resuming from the version that we know is futile.

    410 says so itself; any other refusal of what we sent (400 for a version that the server does
    not like) is answered in the same way. Credentials, patience and the server's own troubles say
    nothing about the version.
    """
    if not isinstance(error, ApiError):
        return False
    if isinstance(error, Unauthorized | Forbidden | TooManyRequests):
        return False
    return 400 <= error.status < 500
