"""The one mutable place: which ledger is current. Events of the watches and binds meet here.

Readers take a snapshot without a lock. The lock covers what reads a ledger in order to replace it;
no IO happens under it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from extender.leading.inherited import HandedOver
from extender.placement.assign import assign
from extender.placement.changes import (
    Change,
    Held,
    HoldsDropped,
    NodeGone,
    NodeSeen,
    PodGone,
    PodSeen,
    PodsForgotten,
    Released,
    Reserved,
)
from extender.placement.distribute import Containers
from extender.placement.facts import PodFacts, PodKey, read_pod
from extender.placement.layout import Layouts
from extender.placement.ledger import Ledger
from extender.placement.nodes import read_node
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import Hold, NodeState, Reservation
from extender.placement.victims import when_left
from gpus.demand import Demand
from gpus.model import GPU_MEMORY_RESOURCE, Assignment, NodeName, PodUid
from kube.objects import Node, Pod
from kube.reflector import Event, EventKind

#: Deleted pods that are remembered: more than kube-scheduler can be asking about at once.
_GONE_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bid:
    """One attempt to give a pod its devices on a node, in one epoch of leadership."""

    pod: PodFacts
    demand: Demand
    node: NodeName
    epoch: int
    #: An assignment of earlier, taken again if it still can be.
    earlier: Containers | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The pod is already bound, or has ended: there is nothing to reserve."""

    pod: PodFacts


class Cluster:
    """Holds the current ledger. Thread-safe; `clock` gives monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards replacing the ledger; notified of each new one.
        self._changed = threading.Condition(threading.Lock())
        self._ledger = Ledger()
        self._openings = 0
        #: Pods that were deleted, the latest last.
        self._gone: dict[PodUid, None] = {}
        self._layouts = Layouts()  # for the watch of nodes alone

    def snapshot(self) -> Ledger:
        """Return the ledger as it is now; it will not change."""
        return self._ledger

    def openings(self) -> int:
        """Return how often something changed that may have made room for a pod."""
        return self._openings

    def wait_for_change(self, since: Ledger, *, seconds: float) -> Ledger:
        """Return the current ledger as soon as it is another one, at the latest after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ledger is not since, seconds)
            return self._ledger

    def on_node(self, event: Event[Node]) -> None:
        """Fold one event of the Node watch in."""
        name = NodeName(event.object.metadata.name)
        if event.kind is EventKind.DELETED:
            with self._changed:
                self._apply(NodeGone(name))
            return
        # Decoding needs no lock: only this watch changes a node's facts.
        known = self._ledger.nodes.get(name)
        facts = read_node(
            event.object,
            layouts=self._layouts,
            previous=known.facts if known is not None else None,
        )
        if known is None or facts is not known.facts:
            with self._changed:
                self._apply(NodeSeen(name, facts))

    def on_pod(self, event: Event[Pod], *, listed: bool = False) -> None:
        """Fold one event of the watch of GPU pods in; confirms and ends reservations.

        `listed` tells that it comes from the listing that a leadership begins with.
        """
        meta = event.object.metadata
        key = PodKey(f"{meta.namespace}/{meta.name}")
        if event.kind is EventKind.DELETED:
            with self._changed:
                self._gone[PodUid(meta.uid)] = None
                if len(self._gone) > _GONE_KEPT:
                    del self._gone[next(iter(self._gone))]
                self._apply(PodGone(key, PodUid(meta.uid)))
            return
        known = self._ledger.pods.get(key)
        facts = read_pod(event.object, previous=known)
        if facts != known:
            with self._changed:
                self._apply(PodSeen(facts, listed))

    def forget_pods(self) -> None:
        """Start over with the nodes alone, because pods are about to be listed anew."""
        with self._changed:
            self._apply(PodsForgotten())

    def without_hold(self, uid: PodUid) -> Ledger:
        """Drop the pod's hold and all that ran out of time; return the ledger after that."""
        with self._changed:
            self._apply(HoldsDropped((uid, *self._expired())))
            return self._ledger

    def expire_holds(self) -> None:
        """Drop all holds that ran out of time."""
        with self._changed:
            self._apply(HoldsDropped(self._expired()))

    def _expired(self) -> tuple[PodUid, ...]:
        now = self._clock()
        return tuple(hold.uid for hold in self._ledger.holds.values() if hold.expires <= now)

    def hold(
        self,
        pod: PodFacts,
        node: NodeName,
        *,
        seconds: float,
        leaving: Collection[PodUid] | None = None,
    ) -> None:
        """Keep devices of a node for a pod that the scheduler may be about to bind there.

        With `leaving`, also such as will be free when these pods are gone, and all that are being
        deleted. Nothing is kept for a pod that was deleted while filter looked: nobody would bind
        it, and others would wait.
        """
        if pod.demand is None:
            return
        with self._changed:
            if pod.uid in self._gone:
                return
            state = self._ledger.nodes.get(node, NodeState()).without(pod.uid)
            if leaving is not None:
                state = when_left(state, also=leaving)
            chosen = assign(pod.demand, state, listed=pod.listed)
            if isinstance(chosen, Rejection):
                return  # changed since filter looked
            hold = Hold(
                uid=pod.uid,
                node=node,
                totals=pod.demand.totals,
                expires=self._clock() + seconds,
                containers=chosen,
            )
            self._apply(Held(hold))

    def reserve(self, bid: Bid) -> Reservation | Rejection | Settled:
        """Give a pod its devices on a node, or tell why not. Holds of others do not count.

        What was reserved for the same pod and node before is reserved again, unless it cannot be.
        """
        with self._changed:
            ledger = self._ledger
            known = ledger.pods.get(bid.pod.key)
            if known is not None and known.uid == bid.pod.uid and not known.waits:
                return Settled(known)
            if ledger.rival(bid.pod) is not None:
                return Rejection((Reason.POD_UNUSABLE,))
            if ledger.sent_to(bid.pod.uid) - {bid.node}:
                return Rejection((Reason.HOLDER_UNKNOWN,))
            outcome = self._choose(bid, ledger.nodes.get(bid.node, NodeState()))
            if isinstance(outcome, Reservation):
                self._apply(Reserved(outcome))
            return outcome

    def _choose(self, bid: Bid, state: NodeState) -> Reservation | Rejection:
        before = state.reserved.get(bid.pod.uid)
        earlier = bid.earlier
        if before is not None and (earlier is None or before.sent):
            earlier = before.assignment.containers
        chosen = self._devices(bid, state.without(bid.pod.uid), state.holds, earlier)
        if isinstance(chosen, Rejection):
            return chosen
        if before is not None and before.sent and chosen != earlier:
            return Rejection((Reason.HOLDER_UNKNOWN,))
        assignment = Assignment(
            epoch=bid.epoch,
            containers=chosen,
            share_bytes=bid.demand.totals.get(GPU_MEMORY_RESOURCE, 0) if chosen else 0,
        )
        reservation = self._reservation(bid.pod, bid.demand, bid.node, assignment)
        return replace(reservation, sent=before is not None and before.sent)

    def _reservation(
        self, pod: PodFacts, demand: Demand, node: NodeName, assignment: Assignment
    ) -> Reservation:
        namespace, _, name = pod.key.partition("/")
        return Reservation(
            uid=pod.uid,
            namespace=namespace,
            name=name,
            node=node,
            totals=demand.totals,
            assignment=assignment,
            since=self._clock(),
            claim=pod.claim,
        )

    def _devices(
        self,
        bid: Bid,
        state: NodeState,
        holds: Mapping[PodUid, Hold],
        earlier: Containers | None,
    ) -> Containers | Rejection:
        """Choose what was given before, else what is held, else what is held for nobody, else any.

        A hold is no promise; but where there is a choice, nobody's is disturbed.
        """
        listed, own = bid.pod.listed, holds.get(bid.pod.uid)
        if earlier is None:
            held = own.containers if own is not None else None
            chosen = assign(bid.demand, state, listed=listed, earlier=held)
            if not isinstance(chosen, Rejection) or not state.holds:
                return chosen
        open_to_pod = state.having(holds={}) if state.holds else state
        return assign(bid.demand, open_to_pod, listed=listed, earlier=earlier)

    def inherit(self, key: PodKey, uid: PodUid, given: HandedOver) -> None:
        """Reserve what a leader before us may be giving to a pod that is not seen bound."""
        with self._changed:
            pod = self._ledger.waiting(key, uid)
            if pod is None or pod.demand is None:
                return
            reservation = self._reservation(pod, pod.demand, given.node, given.assignment)
            self._apply(Reserved(replace(reservation, sent=True)))

    def sent(self, reservation: Reservation) -> None:
        """Keep a reservation until the watch or the janitor settles it: its Binding is on the way.

        Call this when a Binding was taken, and when nobody knows whether it was.
        """
        sent = replace(reservation, sent=True, since=self._clock())
        with self._changed:
            kept = self._ledger.reservations.get(reservation.uid, ())
            # Not when the watch has settled it meanwhile.
            if any(_same(reservation, other) for other in kept):
                self._apply(Reserved(sent))

    def release(self, reservation: Reservation, *, even_sent: bool = False) -> None:
        """Give the devices of a failed bind back, unless an earlier attempt sent a Binding."""
        epoch = reservation.assignment.epoch
        with self._changed:
            kept = self._ledger.reservations.get(reservation.uid, ())
            current = next((other for other in kept if _same(reservation, other)), None)
            if current is not None and (even_sent or not current.sent):
                self._apply(Released(reservation.uid, reservation.node, epoch))

    def _apply(self, change: Change) -> None:
        ledger = self._ledger.apply(change)
        if ledger is not self._ledger:
            self._ledger = ledger
            self._openings += _may_make_room(change)
            self._changed.notify_all()

    def overdue(self, seconds: float) -> list[Reservation]:
        """Return the reservations that the watch has not settled within `seconds`."""
        latest = self._clock() - seconds
        kept = self._ledger.reservations.values()
        return [r for reservations in kept for r in reservations if r.since <= latest]


def _may_make_room(change: Change) -> bool:
    match change:
        case PodSeen(facts=facts):
            return facts.ended
        case Held() | Reserved():
            return False
        case _:
            return True


def _same(one: Reservation, other: Reservation) -> bool:
    return (one.node, one.assignment.epoch) == (other.node, other.assignment.epoch)
