"""Writes down who held how many GPUs for how long: the leader alone, and never the same time twice.

Each ConfigMap says up to when time has been counted, and is written by compare-and-swap. So it does
not matter who writes: a leader of the past, or two at once, add only what nobody has added. Time in
which nobody led is counted as the next leader found things, if it was short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog

from extender.placement.ledger import Ledger
from extender.usage.holding import Holding, Holdings
from gpus.usage import CONFIG_MAP_PREFIX, Month, Slice, bounded, counted, month_of, months_between
from gpus.usage import read_month as read_data
from kube.client import Client
from kube.errors import Conflict, KubeError, NotFound
from kube.objects import ObjectMeta
from service.logs import ERROR

#: Seconds between looks. Pods that live for less may be missed, or count for this long.
_LOOK = 10.0
#: Longest time without a leader that is filled in, and the longest stretch between two looks.
_GAP = timedelta(minutes=10)
#: A record that says to have counted the future was written by a wrong clock.
_CLOCK_SKEW = timedelta(minutes=2)
#: Stretches that are kept while the API server is away: a day of a busy cluster.
_MOST = 10_000
_ATTEMPTS = 3

log = structlog.get_logger()


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None


class Recorder:
    """Counts and writes, on its own thread. `clock` gives the time of day."""

    def __init__(
        self,
        client: Client,
        snapshot: Callable[[], Ledger],
        *,
        namespace: str,
        leading: Callable[[], bool],
        every: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Write to `namespace`, once in `every` seconds."""
        self._client = client
        self._snapshot = snapshot
        self._collection = f"/api/v1/namespaces/{namespace}/configmaps"
        self._leading = leading
        self._every = timedelta(seconds=every)
        self._look = min(_LOOK, every)
        self._clock = clock
        self._holdings = Holdings()
        self._slices: list[Slice] = []
        #: Up to when we have counted in this term; None while we do not lead.
        self._upto: datetime | None = None
        self._written: datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Count until `stop` is set, and then write what is left."""
        while not stop.wait(self._look):
            self.look()
        self.look()
        self.write()

    def look(self) -> None:
        """Count the time since the last look, and write if it is due."""
        now = self._clock()
        if not self._leading():
            if self._upto is not None:
                # Whoever leads now waits for this as little as we for him.
                self.write()
            self._upto = None
            return
        if self._upto is None:
            self._upto = self._begin(now)
            self._written = now
        self._count(self._holdings.of(self._snapshot()), now)
        if self._written is None or now - self._written >= self._every:
            self.write()

    def _begin(self, now: datetime) -> datetime:
        """Return from when on to count: from where another leader stopped, if that is not long."""
        try:
            upto = self._read(month_of(now))[0].upto
        except KubeError:
            return now
        return upto if upto is not None and now - _GAP <= upto <= now else now

    def _count(self, holding: Holding, now: datetime) -> None:
        begin, self._upto = self._upto or now, now
        if not timedelta(0) < now - begin <= _GAP:
            # The clock was set, or the machine slept: nobody knows what happened meanwhile.
            return
        last = self._slices[-1] if self._slices else None
        if last is not None and last.end == begin and _same(last, holding):
            self._slices[-1] = replace(last, end=now)
            return
        self._slices.append(
            Slice(begin=begin, end=now, held=holding.held, installed=holding.installed)
        )
        del self._slices[:-_MOST]

    def write(self) -> None:
        """Write what was counted and not written; what cannot be written is kept."""
        self._written = self._clock()
        if not self._slices:
            return
        names = months_between(self._slices[0].begin, self._slices[-1].end)
        try:
            for name in names:
                self._add(name)
        except KubeError as error:
            log.warning("usage is not recorded now, but kept", **{ERROR: str(error)})
            return
        self._slices.clear()

    def _add(self, name: str) -> None:
        for attempt in range(_ATTEMPTS):
            month, version = self._read(name)
            if month.upto is not None and month.upto > self._clock() + _CLOCK_SKEW:
                month = replace(month, upto=None)
            body: dict[str, Any] = {
                "metadata": {"name": f"{CONFIG_MAP_PREFIX}{name}"},
                "data": bounded(counted(month, self._slices)),
            }
            try:
                if not version:
                    self._client.create(self._collection, body)
                else:
                    body["metadata"]["resourceVersion"] = version
                    self._client.replace(f"{self._collection}/{CONFIG_MAP_PREFIX}{name}", body)
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _read(self, name: str) -> tuple[Month, str]:
        """Return a month, and the version of its ConfigMap; empty where there is none yet."""
        path = f"{self._collection}/{CONFIG_MAP_PREFIX}{name}"
        try:
            found = self._client.get(path, type=_ConfigMap)
        except NotFound:
            return Month(name=name), ""
        month, faults = read_data(name, found.data or {})
        if faults:
            log.warning("a record of usage was edited and is left out", **{ERROR: faults[0]})
        return month, found.metadata.resource_version


def _same(slice_: Slice, holding: Holding) -> bool:
    return slice_.held == holding.held and slice_.installed == holding.installed
