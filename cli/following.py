"""`-w`: rows once more whenever they change. The API server tells what changes; nothing is polled.

First comes what was read, then reflectors read it again and go on. Rows that came out the same are
not printed again.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import structlog

from cli.fleet import Seen, fleet
from cli.lists import Listing, Row, Show, detailed
from cli.reading import LEASES, NODES, SELECTED, Scope, pods_path, read
from kube.client import Client
from kube.objects import Lease, Node, Pod
from kube.reflector import Event, EventKind, Reflector
from kube.watch import HasMetadata

#: Seconds in which changes are put together: a Binding, its pod and its Node change as one.
_TOGETHER = 0.2
#: Seconds after which an agent that has become silent is noticed, for silence is no event.
_LOOK = 10.0


def follow(client: Client, listing: Listing[Row], show: Show[Row]) -> None:
    """Write all rows, and then those that change, until Ctrl-C."""
    _complain_on_stderr()
    seen, _ = read(client, listing.scope)
    changed = _Changes(listing)
    view = _View(client, listing.scope, seen)
    try:
        while True:
            rows = changed.take(seen)
            if rows:
                show(detailed(client, listing, rows)[0], seen)
            seen = view.next()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        view.close()


class _Changes:
    """Remembers what was printed."""

    def __init__(self, listing: Listing[Row]) -> None:
        self._listing: Listing[Any] = listing
        self._printed: dict[str, Any] = {}

    def take(self, seen: Seen) -> list[Any]:
        """Return the rows that are new or changed, and what is left of those that are gone."""
        listing = self._listing
        rows = {_key(listing, row): row for row in listing.rows(fleet(seen))}
        gone = [listing.gone(row) for key, row in self._printed.items() if key not in rows]
        news = [row for key, row in rows.items() if self._printed.get(key) != row]
        self._printed = rows
        return [*gone, *news]


def _key(listing: Listing[Any], row: Any) -> str:
    """Names of pods are names only together with their namespace."""
    return f"{getattr(row, 'namespace', '')}/{listing.name(row)}"


class _View:
    """What reflectors keep up to date."""

    def __init__(self, client: Client, scope: Scope, seen: Seen) -> None:
        self._seen = seen
        self._held_only = seen.held_only
        self._stop = threading.Event()
        self._news: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, Pod] = {}
        self._leases: dict[str, Lease] = {}
        self._reflectors: list[Reflector[Any]] = [
            self._reflector(client, NODES, Node, self._nodes, SELECTED),
            self._reflector(client, pods_path(scope.namespace), Pod, self._pods, scope.selection),
        ]
        if scope.leases:
            self._reflectors.append(self._reflector(client, LEASES, Lease, self._leases, {}))
        for reflector in self._reflectors:
            threading.Thread(target=self._run, args=(reflector,), daemon=True).start()

    def _reflector(
        self,
        client: Client,
        path: str,
        type: Any,  # noqa: A002 - as `Client.get`
        kept: dict[str, Any],
        params: Any,
    ) -> Reflector[Any]:
        def fold(event: Event[HasMetadata]) -> None:
            meta = event.object.metadata
            key = f"{meta.namespace}/{meta.name}"
            if event.kind is EventKind.DELETED:
                kept.pop(key, None)
            else:
                kept[key] = event.object

        # Folded on the thread that reads them, so that nothing changes under it.
        return Reflector(
            client,
            path,
            type=type,
            params=params,
            on_event=lambda event: self._news.put(lambda: fold(event)),
        )

    def _run(self, reflector: Reflector[Any]) -> None:
        try:
            reflector.run(self._stop)
        except Exception as error:  # noqa: BLE001 - raised again where it ends the program
            self._news.put(partial(_raise, error))

    def next(self) -> Seen:
        """Return what is there after something changed, or some seconds later."""
        self._fold(_LOOK)
        until = time.monotonic() + _TOGETHER
        while (left := until - time.monotonic()) > 0:
            self._fold(left)
        if not all(reflector.synced.is_set() for reflector in self._reflectors):
            return replace(self._seen, at=datetime.now(UTC))
        self._seen = Seen(
            nodes=list(self._nodes.values()),
            pods=list(self._pods.values()),
            leases={lease.metadata.name: lease for lease in self._leases.values()},
            at=datetime.now(UTC),
            held_only=self._held_only,
        )
        return self._seen

    def _fold(self, timeout: float) -> None:
        """Take in what came; wait for something at most `timeout` seconds."""
        try:
            self._news.get(timeout=timeout)()
            while True:
                self._news.get_nowait()()
        except Empty:
            pass

    def close(self) -> None:
        """End the watches."""
        self._stop.set()
        for reflector in self._reflectors:
            reflector.close()


def _raise(error: Exception) -> None:
    raise error


def _complain_on_stderr() -> None:
    """A watch that breaks says so beside the rows, in a line without colours."""
    structlog.configure(
        processors=[structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
