"""Leading by the Lease of the kube-scheduler in our own pod, which we follow and never renew.

Its holder is `<hostname>_<uuid>` (cmd/kube-scheduler/app/options), and a pod's containers have one
hostname. So the extender beside the scheduler that leads is the one that it calls, on loopback.

kube-scheduler raises `leaseTransitions` when a process takes the Lease, not when it goes on after
having been frozen, and it knows nothing of an extender that was started anew beside it. As epochs
number the lives of extenders, each term begins with a write of ours that raises `leaseTransitions`
once more. kube-scheduler finds its next renewal refused for the changed object, reads the record,
is still the holder, and keeps the number (client-go tools/leaderelection, tryAcquireOrRenew; seen
on 1.34.2). So no two terms, of one container or of two, have an epoch in common, and whatever an
earlier one still sends is refused by the API server.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from kube.client import MERGE_PATCH, Client
from kube.errors import Conflict, KubeError, NotFound
from kube.leases import count_of, epoch_after, epoch_by_clock
from kube.objects import Lease, LeaseSpec, ObjectMeta
from kube.wire import convert
from service.logs import EPOCH, ERROR, REASON

_log = structlog.get_logger()


class LeaseMode(StrEnum):
    """Whose Lease decides when this process serves."""

    #: Our own, for which the replicas run (`kube.leases.Elector`).
    ELECT = "elect"
    #: That of the kube-scheduler in the same pod.
    FOLLOW = "follow"


@dataclass(slots=True, kw_only=True)
class Following:
    """What is known of a Lease of which others write the holder; no clock, no network.

    Times are seconds of one monotonic clock.
    """

    hostname: str
    #: The record as last seen; None before the first look.
    seen: LeaseSpec | None = None
    #: When the look was begun that preceded the one that saw `renewTime` move: the renewal is later
    #: than that, so the holder is never thought fresher than it is.
    since: float = float("-inf")
    #: The highest epoch ever seen; a Lease deleted or edited by hand must not bring one back.
    highest: int = 0
    _looked: float = field(default=float("-inf"))

    def observe(self, lease: Lease, *, asked: float) -> None:
        """Take note of the Lease; `asked` is when the look was begun."""
        if self.seen is not None and lease.spec.renew_time != self.seen.renew_time:
            self.since = self._looked
        self.seen, self._looked = lease.spec, asked
        self.highest = max(self.highest, count_of(lease))

    def beside_us(self) -> bool:
        """Tell whether the holder is a process of our own pod."""
        holder = (self.seen.holder_identity if self.seen is not None else None) or ""
        return holder.rpartition("_")[0] == self.hostname

    def holds(self, holder: str, epoch: int) -> bool:
        """Tell whether the record still is that of a term."""
        seen = self.seen
        return seen is not None and (seen.holder_identity, seen.lease_transitions) == (
            holder,
            epoch,
        )


@dataclass(frozen=True, slots=True)
class _Term:
    holder: str
    epoch: int
    until: float


class FollowedLease:
    """Says in which epoch we lead while kube-scheduler of our pod holds a Lease.

    `on_leading(epoch)` and `on_lost()` are called on the thread of `run` and must return at once.
    `on_lost` may come late when a call to the API server hangs; `epoch` does not: it is what every
    decision must look at.
    """

    def __init__(  # noqa: PLR0913 - the counterpart of `kube.leases.Elector`
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        hostname: str,
        on_leading: Callable[[int], None],
        on_lost: Callable[[], None],
        fresh_for: float = 10.0,
        every: float = 1.0,
        first: Callable[[], int] = epoch_by_clock,
    ) -> None:
        """Prepare to follow a Lease; `hostname` is that of this pod.

        Times are seconds: we look `every` so often, and lead for `fresh_for` after a renewal, which
        must be less than the Lease's duration, for after that another scheduler may lead.
        """
        if not fresh_for > every > 0:
            raise ValueError("a Lease can be followed with fresh_for > every > 0 only")
        # A call that hangs must leave time for another one before the term is over.
        self._client = client.with_timeout(fresh_for / 2)
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        self._following = Following(hostname=hostname)
        self._meta = ObjectMeta()
        self._on_leading = on_leading
        self._on_lost = on_lost
        self._fresh_for = fresh_for
        self._every = every
        self._first = first
        #: One field, so that readers need no lock.
        self._term: _Term | None = None
        #: The highest epoch that is known to have been used, by others than the record.
        self._used = 0

    @property
    def epoch(self) -> int | None:
        """`leaseTransitions` while the scheduler beside us leads and renews, else None."""
        term = self._term
        return term.epoch if term is not None and time.monotonic() < term.until else None

    def outdo(self, epoch: int) -> None:
        """Lead in later epochs than this one only; as `Elector.outdo`."""
        self._used = max(self._used, epoch)

    def run(self, stop: threading.Event) -> None:
        """Follow the Lease until `stop` is set."""
        try:
            while not stop.is_set():
                self._turn()
                stop.wait(self._every * random.uniform(1.0, 1.2))  # noqa: S311 - jitter
        finally:
            if self._term is not None:
                self._lose("stopping")

    def _turn(self) -> None:
        if self._term is not None and self._term.epoch <= self._used:
            self._lose("its epoch was in use before")
        self._following.highest = max(self._following.highest, self._used)
        try:
            self._look()
            self._end_or_prolong()
            if self._term is None and self._may_begin():
                self._begin()
        except Conflict:
            _log.debug("the scheduler renewed its lease first", lease=self._path)
        except KubeError as error:
            _log.warning("lease not followed", lease=self._path, **{ERROR: str(error)})
        if self._term is not None and self.epoch is None:
            self._lose("the scheduler's renewals are not seen any more")

    def _look(self) -> None:
        asked = time.monotonic()
        try:
            lease = self._client.get(self._path, type=Lease)
        except NotFound:
            lease = Lease()
        self._take_in(lease, asked=asked)

    def _end_or_prolong(self) -> None:
        term = self._term
        if term is None:
            return
        if self.epoch is None:
            self._lose("the scheduler's renewals are not seen any more")
        elif self._following.holds(term.holder, term.epoch):
            self._term = _Term(term.holder, term.epoch, self._following.since + self._fresh_for)
        else:
            self._lose("the record names another term")

    def _may_begin(self) -> bool:
        fresh = time.monotonic() < self._following.since + self._fresh_for
        return fresh and self._following.beside_us()

    def _begin(self) -> None:
        """Raise the epoch, unless the record has changed since we looked, and lead in it."""
        epoch = epoch_after(self._following.highest, first=self._first)
        holder = (self._following.seen or LeaseSpec()).holder_identity or ""
        body = {
            "metadata": {"resourceVersion": self._meta.resource_version},
            "spec": {"leaseTransitions": epoch},
        }
        asked = time.monotonic()
        answer = self._client.patch(self._path, body, content_type=MERGE_PATCH)
        self._take_in(convert(answer, Lease), asked=asked)
        if not self._following.holds(holder, epoch):
            raise KubeError("the API server did not store the record that was sent")
        self._term = _Term(holder, epoch, self._following.since + self._fresh_for)
        _log.info("leading", lease=self._path, **{EPOCH: epoch})
        self._on_leading(epoch)

    def _take_in(self, lease: Lease, *, asked: float) -> None:
        self._following.observe(lease, asked=asked)
        self._meta = lease.metadata

    def _lose(self, why: str) -> None:
        _log.warning("no longer leading", lease=self._path, **{REASON: why})
        self._term = None
        self._on_lost()
