"""Thousands of requests to the API server in seconds, so that the time goes into measuring."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kube.connection import connect
from localcluster.api import Object
from localcluster.bench.wire import Wire, client_context, dial

_CONNECTIONS = 6
_GOOD = range(200, 300)


class BulkError(Exception):
    """The API server refused one of many requests; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request; `start` is "POST /path"."""

    start: str
    body: Object


def send_all(
    calls: Iterable[Call], *, kubeconfig: Path, tell: Callable[[int], None] | None = None
) -> None:
    """Send the requests over several connections, in no order.

    `tell` hears how many are done. Raises `BulkError` at the first that is refused.
    """
    shared = _Shared(calls, tell)
    connection = connect(str(kubeconfig))
    context = client_context(
        ca_file=connection.ca_file,
        cert_file=connection.client_cert_file or "",
        key_file=connection.client_key_file or "",
    )

    def work() -> None:
        wire = dial(connection.server, context)
        try:
            for call in shared.taken():
                _send(wire, call)
                shared.done()
        finally:
            wire.close()

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        try:
            for worker in [pool.submit(work) for _ in range(_CONNECTIONS)]:
                worker.result()
        finally:
            # After a fault or Ctrl-C the others do not go on to the end.
            shared.stop()


class _Shared:
    """What the threads take from and add to."""

    def __init__(self, calls: Iterable[Call], tell: Callable[[int], None] | None) -> None:
        self._tell = tell
        self._lock = threading.Lock()  # guards the next two
        self._calls = iter(calls)
        self._count = 0

    def taken(self) -> Iterator[Call]:
        while True:
            with self._lock:
                call = next(self._calls, None)
            if call is None:
                return
            yield call

    def done(self) -> None:
        with self._lock:
            self._count += 1
            count = self._count
        if self._tell is not None:
            self._tell(count)

    def stop(self) -> None:
        with self._lock:
            self._calls = iter(())


def _send(wire: Wire, call: Call) -> None:
    status, answer = wire.ask(call.start, msgspec.json.encode(call.body))
    if status not in _GOOD:
        raise BulkError(f"{call.start}: {answer[:500].decode(errors='replace')}")
