"""Leadership: the Lease, the fence, a fresh listing of the pods, and only then an answer.

| state                        | /readyz says                                  | scheduler gets |
|------------------------------|-----------------------------------------------|----------------|
| nodes not listed yet         | nodes are not listed yet                      | error          |
| another replica leads        | another replica leads                         | error          |
| leading, fence not proven    | what keeps the fence from being proven        | error          |
| leading, pods being listed   | pods are not listed yet                       | error          |
| a pod bears our epoch or more| the epoch was in use before                   | error          |
| serving                      | ok                                            | answers        |
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from extender.cluster import Cluster
from extender.leading.fence import Fence, Outdone
from extender.leading.inherited import HandedOver, handed_over
from extender.placement.facts import PodKey
from gpus.annotations import GPU_SELECTOR
from gpus.model import PodUid
from kube.client import Client
from kube.errors import KubeError
from kube.objects import Pod
from kube.reflector import Event, Reflector
from service.logs import EPOCH, POD, REASON

_PODS = "/api/v1/pods"
_GPU_PODS = {"labelSelector": GPU_SELECTOR}
#: Seconds before what failed is tried again at the beginning of a term.
_AGAIN = 2.0

log = structlog.get_logger()


class Lease(Protocol):
    """What of `kube.leases.Elector` and `FollowedLease` is needed here."""

    @property
    def epoch(self) -> int | None: ...

    def outdo(self, epoch: int) -> None: ...


@dataclass(slots=True)
class _Term:
    """One time of leading, from the Lease to its loss."""

    epoch: int
    over: threading.Event
    reflector: Reflector[Pod] | None = None
    fault: str = "the fence is not proven yet"
    #: The highest epoch that pods were bound in before this term.
    before: int = 0


class Leader:
    """Says whether this process may serve, and prepares it to.

    A term begins with a ledger without pods: those that a leader before us bound are all in the
    listing that is begun after the fence was proven, for later ones the API server refuses.
    """

    def __init__(
        self,
        client: Client,
        cluster: Cluster,
        *,
        fence: Fence | None,
        nodes_synced: Callable[[], bool],
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._fence = fence
        self._nodes_synced = nodes_synced
        self._lease: Lease | None = None
        self._changed = threading.Condition()  # guards the next two
        self._term: _Term | None = None
        self._stopping = False

    def follow(self, lease: Lease) -> None:
        """Take the Lease whose holder may serve; call this before `run`."""
        self._lease = lease

    def on_leading(self, epoch: int) -> None:
        """Begin a term; returns at once, for the Lease must be renewed meanwhile."""
        with self._changed:
            self._end()
            self._term = _Term(epoch=epoch, over=threading.Event())
            self._changed.notify_all()

    def on_lost(self) -> None:
        """End the term."""
        with self._changed:
            self._end()
            self._changed.notify_all()

    def serving(self) -> int | None:
        """Return the epoch in which we may answer the scheduler now, or None."""
        return self._epoch() if self.not_ready() is None else None

    def not_ready(self) -> str | None:
        """Return why the scheduler gets no answer from us; None when it does."""
        if not self._nodes_synced():
            return "nodes are not listed yet"
        epoch, term = self._epoch(), self._term
        if epoch is None or term is None or term.epoch != epoch:
            return "another replica leads, or nobody does yet"
        if term.reflector is None:
            return term.fault
        if term.before >= epoch:
            return "the epoch was in use before, a later one will be taken"
        return None if term.reflector.synced.is_set() else "pods are not listed yet"

    def doubt(self) -> None:
        """Begin another term unless the API server knows of ours; told when it refused a write.

        Somebody may have applied our ServiceAccount anew, and with it taken the epoch away.
        """
        epoch = self.serving()
        if epoch is None or self._fence is None or self._lease is None:
            return
        if not self._fence.stands(epoch):
            log.warning("epoch is not in force any more", **{EPOCH: epoch})
            self._lease.outdo(epoch)

    def last_contact(self) -> float | None:
        """Return when the pods were last known to be current (monotonic seconds), or None while
        they are not followed.
        """
        term = self._term
        return term.reflector.last_contact if term is not None and term.reflector else None

    def run(self, stop: threading.Event) -> None:
        """Work through terms until `stop` is set; `close` wakes it."""
        while not stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._term is not None)
                term = self._term
            if term is not None and not self._stopping:
                self._serve(term)

    def close(self) -> None:
        """Wake `run` for the end of the process."""
        with self._changed:
            self._stopping = True
            self._end()
            self._changed.notify_all()

    def _epoch(self) -> int | None:
        return self._lease.epoch if self._lease is not None else None

    def _end(self) -> None:
        if self._term is not None:
            self._term.over.set()
            if self._term.reflector is not None:
                self._term.reflector.close()
            self._term = None

    def _serve(self, term: _Term) -> None:
        inherited = self._inherited(term) if self._fenced(term) else None
        if inherited is None:
            return
        self._cluster.forget_pods()

        def on_pod(event: Event[Pod]) -> None:
            listed = not reflector.synced.is_set()
            self._cluster.on_pod(event, listed=listed)
            if listed:
                meta = event.object.metadata
                key, uid = PodKey(f"{meta.namespace}/{meta.name}"), PodUid(meta.uid)
                self._look_for_epochs(key, term)
                if uid in inherited:
                    self._cluster.inherit(key, uid, inherited[uid])

        reflector = Reflector(self._client, _PODS, type=Pod, on_event=on_pod, params=_GPU_PODS)
        with self._changed:
            if term.over.is_set():
                return
            term.reflector = reflector
        log.info("leading, listing pods", **{EPOCH: term.epoch})
        reflector.run(term.over)
        log.info("no longer leading", **{EPOCH: term.epoch})

    def _look_for_epochs(self, key: PodKey, term: _Term) -> None:
        """Begin another term if a pod was bound in ours before it began.

        A Lease that was deleted counts from one again, unless a candidate remembers; a leader of
        the past with the same number would not be fenced.
        """
        known = self._cluster.snapshot().pods.get(key)
        if known is None or known.assignment is None or known.assignment.epoch <= term.before:
            return
        term.before = known.assignment.epoch
        if term.before >= term.epoch and self._lease is not None:
            log.warning("epoch was in use before", **{EPOCH: term.epoch, POD: key})
            self._lease.outdo(term.before)

    def _inherited(self, term: _Term) -> Mapping[PodUid, HandedOver] | None:
        """Return what leaders before us handed over; None when the term is over."""
        while not term.over.is_set():
            try:
                return handed_over(self._client)
            except KubeError as error:
                term.fault = f"what is under way cannot be listed: {error}"
                log.warning("not serving", **{EPOCH: term.epoch, REASON: term.fault})
                term.over.wait(_AGAIN)
        return None

    def _fenced(self, term: _Term) -> bool:
        while self._fence is not None and not term.over.is_set():
            try:
                fault = self._fence.prove(term.epoch, stop=term.over)
            except Outdone as later:
                fault = str(later)
                if self._lease is not None:
                    self._lease.outdo(later.epoch)
            if fault is None:
                return True
            term.fault = fault
            log.error("fence is down, not serving", **{EPOCH: term.epoch, REASON: fault})
            term.over.wait(_AGAIN)
        return not term.over.is_set()
