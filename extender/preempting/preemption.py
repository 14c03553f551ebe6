"""Pods that get GPUs of less important ones: what was begun for whom, and what is wanted.

Two may make room for a pod, and never both for the same one: kube-scheduler, where other resources
are short too, and the evictor. No IO here; `extender.preempting.eviction` does what is wanted.

kube-scheduler does not see GPUs that it is told to ignore. Where CPU is short it would evict
pods, find the GPUs still in use, and go on to the next node, until there is none left. So it asks
before it evicts (`preemptVerb`), and is told only the nodes where the GPUs come free as well.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from extender.cluster import Cluster
from extender.placement.facts import PodFacts
from extender.placement.fit import Ask, ask_of
from extender.placement.ledger import Ledger
from extender.placement.shortlist import Decision
from extender.placement.state import NodeState
from extender.placement.victims import helps
from gpus.model import NodeName, PodUid


class Mode(StrEnum):
    """Who may evict others for the sake of GPUs."""

    #: kube-scheduler alone, where it has to for other resources and GPUs come free as well.
    OFF = "off"
    #: This extender too, where nothing but GPUs is short.
    EVICT = "evict"


#: Seconds from a filter to the eviction that it calls for. In the same breath kube-scheduler tries
#: to preempt by itself; if it does, there is nothing left to do.
DELAY = 0.5
#: Seconds that what came free is kept for the pod; kube-scheduler's longest backoff is 10 s.
KEPT = 30.0
#: Seconds until an eviction that was allowed must show in the watch.
BEGUN = 10.0
#: Seconds before a pod for which nothing could be done is looked at again.
REST = 10.0
#: What kube-scheduler writes where it has nominated no node.
NOWHERE = NodeName("")
#: Pods that may wait for evictions, and pods for which some were begun; more are turned away.
_MOST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A pod that was rejected for want of free devices, and the nodes that could be its own.

    kube-scheduler named those nodes, so nothing but devices is missing there. `due` is in seconds
    of the monotonic clock.
    """

    pod: PodFacts
    ask: Ask
    names: Collection[NodeName]
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Room that is being made for a pod: on `node`, or where kube-scheduler chooses while None.

    `nodes` tells whose leaving makes the room on each of them. `since` and `until` are in seconds
    of the monotonic clock; the latter is set while nobody is leaving who is waited for.
    """

    pod: PodFacts
    ask: Ask
    nodes: Mapping[NodeName, frozenset[PodUid]]
    node: NodeName | None
    since: float
    by_scheduler: bool
    #: Our own watch has shown the pod.
    seen: bool = False
    until: float | None = None


class Preemption:
    """Remembers needs and claims. Thread-safe; `clock` gives monotonic seconds.

    `evicting` tells whether anybody takes needs up.
    """

    def __init__(
        self, cluster: Cluster, *, evicting: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster = cluster
        self._evicting = evicting
        self._clock = clock
        # Guards all below; notified of new needs.
        self._changed = threading.Condition()
        self._needs: dict[PodUid, Need] = {}
        self._claims: OrderedDict[PodUid, Claim] = OrderedDict()
        self._resting: OrderedDict[PodUid, float] = OrderedDict()

    def filtered(self, pod: PodFacts, decision: Decision, *, nominated: NodeName) -> None:
        """Take note of how filter decided: keep what comes free for the pod, or note its need.

        `nominated` is where kube-scheduler makes room for the pod, or `NOWHERE`; it asks about
        that node alone before it asks about all.
        """
        if decision.nodes:
            if self._needs:
                with self._changed:
                    self._needs.pop(pod.uid, None)
            return
        if pod.demand is None or not (self._evicting or self._claims):
            return
        ask = ask_of(pod.demand, listed=pod.listed)
        with self._changed:
            claim = self._current(pod, nominated=nominated)
            if claim is not None and claim.node is not None:
                if claim.node in decision.busy and self._helps(claim, claim.node):
                    self._keep(claim)
                elif {nominated} != {*decision.busy, *decision.unfit}:
                    del self._claims[pod.uid]
            if pod.uid not in self._claims:
                self._note(pod, ask, decision)

    def vetted(
        self,
        pod: PodFacts,
        candidates: Mapping[NodeName, frozenset[PodUid]],
        *,
        nominated: NodeName,
    ) -> list[NodeName]:
        """Return the nodes where the pod would get its devices if these pods were evicted.

        None while room is being made for it already.
        """
        if pod.demand is None:
            return list(candidates)
        ask = ask_of(pod.demand, listed=pod.listed)
        with self._changed:
            if self._current(pod, nominated=nominated) is not None:
                return []
            nodes = self._cluster.snapshot().seen_by(pod.uid)
            useful = {
                name: uids
                for name, uids in candidates.items()
                if helps(ask, nodes.get(name, NodeState()), uids)
            }
            if useful:
                self._needs.pop(pod.uid, None)
                claim = Claim(
                    pod=pod,
                    ask=ask,
                    nodes=useful,
                    node=None,
                    since=self._clock(),
                    by_scheduler=True,
                )
                self._claim(claim)
            return list(useful)

    def next_need(self, *, seconds: float) -> Need | None:
        """Return the need of the most important pod that is due; None after so many seconds."""
        deadline = self._clock() + seconds
        with self._changed:
            while True:
                now = self._clock()
                due = [need for need in self._needs.values() if need.due <= now]
                if due:
                    need = max(due, key=lambda need: need.pod.priority)
                    return self._needs.pop(need.pod.uid)
                if now >= deadline:
                    return None
                next_due = min((need.due for need in self._needs.values()), default=deadline)
                self._changed.wait(min(next_due, deadline) - now)

    def begin(self, need: Need, node: NodeName, victims: frozenset[PodUid]) -> bool:
        """Claim a node, and keep what comes free there; False when there is a claim already."""
        with self._changed:
            if need.pod.uid in self._claims:
                return False
            claim = Claim(
                pod=need.pod,
                ask=need.ask,
                nodes={node: victims},
                node=node,
                since=self._clock(),
                by_scheduler=False,
            )
            for uid in self._lesser(need.pod.priority):
                if self._claims[uid].node == node:
                    del self._claims[uid]
                    self._cluster.without_hold(uid)
            self._claim(claim)
            self._keep(claim)
            return True

    def lesser(self, priority: int) -> frozenset[PodUid]:
        """Return the pods of lower priority for which devices are kept: they must stand back."""
        with self._changed:
            return self._lesser(priority)

    def _lesser(self, priority: int) -> frozenset[PodUid]:
        return frozenset(
            uid for uid, claim in self._claims.items() if claim.pod.priority < priority
        )

    def limit(self, need: Need, node: NodeName, leaving: frozenset[PodUid]) -> None:
        """Wait for these alone, because the others could not be evicted."""
        with self._changed:
            claim = self._claims.get(need.pod.uid)
            if claim is not None and claim.node == node:
                self._claims[need.pod.uid] = replace(claim, nodes={node: leaving})

    def give_up(self, need: Need) -> None:
        """Drop the claim of a pod, if there is one, and leave the pod alone for a while."""
        with self._changed:
            self._claims.pop(need.pod.uid, None)
            self._resting[need.pod.uid] = self._clock() + REST
            self._resting.move_to_end(need.pod.uid)
            if len(self._resting) > _MOST:
                self._resting.popitem(last=False)

    def renew(self) -> None:
        """Keep what comes free for those who still wait; forget the others."""
        with self._changed:
            for claim in list(self._claims.values()):
                current = self._current(claim.pod)
                if current is not None and current.node is not None:
                    self._keep(current)

    def _current(self, pod: PodFacts, *, nominated: NodeName = NOWHERE) -> Claim | None:
        """Return the pod's claim as it is now; drops it when it is over."""
        claim = self._claims.get(pod.uid)
        if claim is None:
            return None
        ledger, now = self._cluster.snapshot(), self._clock()
        known = ledger.pods.get(pod.key)
        if known is not None and known.uid == pod.uid:
            waits = known.waits
            claim = replace(claim, seen=True)
        else:
            # kube-scheduler may have heard of the pod before we did.
            waits = not claim.seen and now < claim.since + BEGUN
        if claim.node is None and nominated in claim.nodes:
            claim = replace(claim, node=nominated)
        claim = self._followed(claim, ledger, now)
        over = claim.until is not None and now >= claim.until
        if over or not waits:
            del self._claims[pod.uid]
            return None
        self._claims[pod.uid] = claim
        return claim

    def _followed(self, claim: Claim, ledger: Ledger, now: float) -> Claim:
        """Return a claim with its end set as soon as it can be told."""
        begun = claim.since + BEGUN
        if claim.node is None:
            return replace(claim, until=begun)
        there = ledger.nodes.get(claim.node, NodeState()).pods
        left = [there[uid] for uid in claim.nodes[claim.node] if uid in there]
        if any(pod.leaving for pod in left):
            return replace(claim, until=None)
        if left or claim.by_scheduler:
            # Nobody leaves (any more): it came to nothing, or it is kube-scheduler's turn again.
            return replace(claim, until=begun)
        return claim if claim.until is not None else replace(claim, until=now + KEPT)

    def awaited(self, node: NodeName) -> bool:
        """Tell whether a pod that holds devices there is being deleted."""
        state = self._cluster.snapshot().nodes.get(node, NodeState())
        return any(pod.leaving for pod in state.pods.values())

    def _helps(self, claim: Claim, node: NodeName) -> bool:
        nodes = self._cluster.snapshot().seen_by(claim.pod.uid)
        return helps(claim.ask, nodes.get(node, NodeState()), claim.nodes[node])

    def _keep(self, claim: Claim) -> None:
        if claim.node is not None:
            leaving = claim.nodes[claim.node]
            self._cluster.hold(claim.pod, claim.node, seconds=KEPT, leaving=leaving)

    def _claim(self, claim: Claim) -> None:
        self._claims[claim.pod.uid] = claim
        if len(self._claims) > _MOST:
            self._claims.popitem(last=False)

    def _note(self, pod: PodFacts, ask: Ask, decision: Decision) -> None:
        now = self._clock()
        allowed = self._evicting and pod.priority > 0 and not pod.patient
        if not allowed or not decision.busy or self._resting.get(pod.uid, 0.0) > now:
            return
        before = self._needs.get(pod.uid)
        due = before.due if before is not None else now + DELAY
        self._needs[pod.uid] = Need(pod=pod, ask=ask, names=decision.busy, due=due)
        if len(self._needs) > _MOST:
            del self._needs[min(self._needs, key=lambda uid: self._needs[uid].pod.priority)]
        self._changed.notify_all()
