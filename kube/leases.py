"""Leader election on a Lease, and the epoch that lets the API server refuse a leader of the past.

The algorithm is client-go's tools/leaderelection: compare-and-swap by resourceVersion, and another
holder's renewals are timed by our own monotonic clock, so the clocks of two machines are never
compared. Unlike there, `leaseTransitions` rises at every acquisition: it numbers the leaders.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import structlog

from kube.client import Client
from kube.errors import Conflict, KubeError, NotFound
from kube.objects import Lease, LeaseSpec, ObjectMeta
from kube.timestamps import micro_time
from kube.wire import convert

_log = structlog.get_logger(__name__)

#: 2024-01-01 in Unix time. `leaseTransitions` has 31 bits: enough for the seconds until 2092.
_ORIGIN = 1_704_067_200
#: No clock that is right gives less, nor more before 2087; a Lease with a count beyond these was
#: deleted or edited, or is not ours.
_LEAST, _MOST = 50_000_000, 2_000_000_000


def epoch_by_clock() -> int:
    """Return an epoch for a Lease of which nobody knows the count: seconds since 2024.

    Nobody leads more than once a second, so a count that began in this way and was lost with its
    Lease has not come so far.
    """
    return int(datetime.now(UTC).timestamp()) - _ORIGIN


def epoch_after(highest: int, *, first: Callable[[], int]) -> int:
    """Return an epoch that was never used: the next one, or `first` where the count is lost."""
    return highest + 1 if highest >= _LEAST else max(highest + 1, first())


def count_of(lease: Lease) -> int:
    """Return how many terms a Lease tells of."""
    return plausible(lease.spec.lease_transitions or 0)


def plausible(epoch: int) -> int:
    """Return an epoch, or 0 for a number that nobody can have counted to.

    After the highest that a Lease can hold there is no other: nobody could lead any more.
    """
    return epoch if epoch < _MOST else 0


@dataclass(slots=True, kw_only=True)
class Candidacy:
    """What one candidate knows of the Lease, and what it may write next; no clock, no network.

    `now` is always seconds of one monotonic clock.
    """

    identity: str
    duration: float
    #: The record as last seen, and since when it has not changed.
    seen: LeaseSpec = field(default_factory=LeaseSpec)
    since: float = float("-inf")
    #: The highest epoch ever seen; a Lease deleted or edited by hand must not bring one back.
    highest: int = 0

    def observe(self, lease: Lease, *, now: float) -> None:
        """Take note of the Lease as the API server has it."""
        if lease.spec != self.seen:
            self.seen, self.since = lease.spec, now
        self.highest = max(self.highest, count_of(lease))

    def may_take(self, *, now: float) -> bool:
        """Tell whether the Lease is free, ours, or has not been renewed for its duration."""
        return self.left(now=now) == 0

    def left(self, *, now: float) -> float:
        """Return for how many seconds its holder must still be left alone."""
        if self.seen.holder_identity in (None, "", self.identity):
            return 0.0
        duration = self.seen.lease_duration_seconds or self.duration
        return max(0.0, self.since + duration - now)

    def holds(self, epoch: int) -> bool:
        """Tell whether the record says that we lead in this epoch."""
        return (self.seen.holder_identity, self.seen.lease_transitions) == (self.identity, epoch)

    def acquisition(self, wall: str, *, epoch: int) -> LeaseSpec:
        """Return the record by which we begin to lead in an epoch."""
        return LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=max(1, round(self.duration)),
            acquire_time=wall,
            renew_time=wall,
            lease_transitions=epoch,
        )

    def renewal(self, wall: str) -> LeaseSpec:
        """Return the record by which we go on to lead."""
        return msgspec.structs.replace(self.seen, renew_time=wall)

    def release(self, wall: str) -> LeaseSpec:
        """Return the record that lets another candidate take over at once."""
        return msgspec.structs.replace(self.seen, holder_identity="", renew_time=wall)


class Elector:
    """Takes a Lease when it is free, keeps it while `run` runs, and says in which epoch we lead.

    `on_leading(epoch)` and `on_lost()` are called on the thread of `run` and must return at once,
    for no renewal happens meanwhile. `on_lost` may come late when a call to the API server hangs;
    `epoch` does not: it is what every decision must look at.
    """

    def __init__(  # noqa: PLR0913 - client-go's LeaderElectionConfig, written once by a __main__
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_leading: Callable[[int], None],
        on_lost: Callable[[], None],
        duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
        first: Callable[[], int] = epoch_by_clock,
    ) -> None:
        """Prepare to run for a Lease; `identity` must never be used by another process.

        Times are seconds: others take over `duration` after the last renewal, we stop leading
        `renew_deadline` after it, and renew every `retry`. Who does not lead looks twice as often,
        and when the Lease runs out: nobody binds until it is seen to be free. `first` numbers the
        first term of a Lease that is new.
        """
        if not duration > renew_deadline > retry > 0:
            raise ValueError("a Lease needs duration > renew_deadline > retry > 0")
        # A call that hangs must leave time for another one before the deadline.
        self._client = client.with_timeout(renew_deadline / 2)
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._new = self._meta = ObjectMeta(name=name, namespace=namespace)
        self._candidacy = Candidacy(identity=identity, duration=duration)
        self._on_leading = on_leading
        self._on_lost = on_lost
        self._renew_deadline = renew_deadline
        self._first = first
        self._retry = retry
        #: Our epoch and until when it holds, in one field so that readers need no lock.
        self._term: tuple[int, float] | None = None
        self._resigned = threading.Event()
        #: The highest epoch that is known to have been used, by others than the record.
        self._used = 0

    @property
    def epoch(self) -> int | None:
        """`leaseTransitions` while we lead and the last renewal is recent enough, else None."""
        term = self._term
        return term[0] if term is not None and time.monotonic() < term[1] else None

    def run(self, stop: threading.Event) -> None:
        """Run for the Lease until `stop` is set or `resign` is called, then hand it back.

        Returns when `stop` is set; `resign` wakes it for that too.
        """
        try:
            while not (stop.is_set() or self._resigned.is_set()):
                self._turn()
                self._resigned.wait(self._pause())
        finally:
            if self._term is not None:
                self._release()
        stop.wait()

    def resign(self) -> None:
        """Lead no more and hand the Lease back, now or when it comes; may be called by anyone."""
        self._resigned.set()

    def outdo(self, epoch: int) -> None:
        """Lead in later epochs than this one only; a term in an earlier one ends soon.

        For a Lease that was deleted, or set back by hand, when nobody was left who knew its number.
        """
        self._used = max(self._used, epoch)

    def _pause(self) -> float:
        pause = self._retry * random.uniform(1.0, 1.2)  # noqa: S311 - jitter
        if self._term is not None:
            return pause
        return min(pause / 2, self._candidacy.left(now=time.monotonic()) or pause)

    def _turn(self) -> None:
        if self._term is not None and self._term[0] <= self._used:
            self._lose("its epoch was in use before")
        self._candidacy.highest = max(self._candidacy.highest, self._used)
        try:
            self._renew_or_acquire()
        except Conflict:
            _log.debug("another candidate was faster", lease=self._path)
        except KubeError as error:
            _log.warning("lease not renewed", lease=self._path, error=str(error))
        if self._term is not None and self.epoch is None:
            self._lose("the renewal deadline has passed")

    def _renew_or_acquire(self) -> None:
        if (epoch := self.epoch) is not None:
            # A leader knows the record and need not read it, unless somebody else wrote there.
            with suppress(Conflict, NotFound):
                return self._write(self._candidacy.renewal(_wall()), epoch=epoch)
        self._read()
        epoch = self.epoch
        if epoch is not None and self._candidacy.holds(epoch):
            return self._write(self._candidacy.renewal(_wall()), epoch=epoch)
        if self._term is not None:
            self._lose(
                "the record names another term"
                if epoch is not None
                else "the renewal deadline has passed"
            )
        if self._candidacy.may_take(now=time.monotonic()):
            self._acquire()
        return None

    def _read(self) -> None:
        try:
            lease = self._client.get(self._path, type=Lease)
        except NotFound:
            lease = Lease(metadata=self._new)
        self._take_in(lease)

    def _acquire(self) -> None:
        epoch = epoch_after(self._candidacy.highest, first=self._first)
        self._write(self._candidacy.acquisition(_wall(), epoch=epoch), epoch=epoch)
        _log.info("leading", lease=self._path, epoch=epoch)
        self._on_leading(epoch)

    def _write(self, spec: LeaseSpec, *, epoch: int) -> None:
        # Before the call: others count from when the API server took it, which is later.
        sent = time.monotonic()
        self._put(spec)
        if not self._candidacy.holds(epoch):
            raise KubeError("the API server did not store the record that was sent")
        self._term = (epoch, sent + self._renew_deadline)

    def _put(self, spec: LeaseSpec) -> None:
        lease = Lease(metadata=self._meta, spec=spec)
        if self._meta.resource_version:
            answer = self._client.replace(self._path, lease)
        else:
            answer = self._client.create(self._collection, lease)
        self._take_in(convert(answer, Lease))

    def _take_in(self, lease: Lease) -> None:
        # After the call, so that another holder is never thought older than it is.
        self._candidacy.observe(lease, now=time.monotonic())
        self._meta = lease.metadata

    def _lose(self, why: str) -> None:
        _log.warning("no longer leading", lease=self._path, reason=why)
        self._term = None
        self._on_lost()

    def _release(self) -> None:
        self._term = None
        self._on_lost()
        try:
            self._hand_back()
        except KubeError as error:
            _log.warning("lease not handed back", lease=self._path, error=str(error))
        else:
            _log.info("lease handed back", lease=self._path)

    def _hand_back(self) -> None:
        with suppress(Conflict):
            return self._put(self._candidacy.release(_wall()))
        # Somebody wrote there, a label perhaps: whoever comes next shall not have to wait for that.
        self._read()
        if self._candidacy.seen.holder_identity == self._candidacy.identity:
            self._put(self._candidacy.release(_wall()))
        return None


def _wall() -> str:
    return micro_time(datetime.now(UTC))
