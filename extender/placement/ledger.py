"""Who holds which GPU: an immutable value, folded forward one change at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar, assert_never

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
from extender.placement.facts import ClaimKey, PodFacts, PodKey
from extender.placement.patches import Patched
from extender.placement.shards import Shards
from extender.placement.state import MEMORY_OF_ENDED, Hold, NodeState, Reservation
from gpus.model import NodeName, PodUid

#: How many device lists of pods that are gone are remembered; their ConfigMaps are collected
#: within seconds.
MEMORY_OF_CLAIMS = 4096

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything that placement knows. Readers keep a snapshot; `apply` makes the next one.

    Invariants, after every change:
    1. A pod that is bound and not ended is in `pods` of exactly its node's state, whether or not
       that Node has been seen; a pod that is unbound, ended or gone is in none.
    2. A reservation stays until its pod is seen bound (anywhere), ended or gone, or until it is
       released. So from the moment of reserving, no device is free while its Binding may exist.
    3. Of one `namespace/name` only the pod seen last counts; a new UID is a new pod.
    4. `reservations` and `holds` mirror those in the states: same pods, same nodes.
    5. The same facts give the same ledger in whatever order different objects came. (Only which
       ended pods are still remembered depends on it.)
    6. On the annotation path a device that is open to new pods is healthy, and no pod, reservation
       or hold names it; nor does kubelet for a pod that is not known here and has not ended.
    7. A GPU that anybody has to himself has room for no share; what a share finds there else is the
       GPU's memory less all shares of pods, reservations and holds.
    8. While it cannot be said what a pod on a node holds, nothing there is open and there is no
       room.
    So who is given only what is open, or has room, as `assign` does, makes no GPU held twice and
    none held beyond its memory.

    The API server's part: changes of one object arrive in order; a bound pod stays on its node and
    an ended pod does not come back to life, so whatever says otherwise is old and is ignored.
    """

    nodes: Patched[NodeName, NodeState] = field(default_factory=Patched)
    pods: Shards[PodKey, PodFacts] = field(default_factory=Shards)
    claims: Shards[ClaimKey, tuple[PodKey, ...]] = field(default_factory=Shards)
    #: Device lists of unbound pods whose ConfigMap may be there: an earlier bind, of ours or of a
    #: leader before us, may have broken off after it was made.
    begun: Shards[ClaimKey, bool] = field(default_factory=Shards)
    #: Device lists of pods that are gone, oldest first; their ConfigMaps may still be there.
    old_claims: Mapping[ClaimKey, None] = field(default_factory=dict)
    reservations: Mapping[PodUid, tuple[Reservation, ...]] = field(default_factory=dict)
    holds: Mapping[PodUid, Hold] = field(default_factory=dict)

    def apply(self, change: Change) -> Ledger:
        """Return the ledger after a change; the same object when nothing changed."""
        match change:
            case NodeSeen() | NodeGone():
                return _node_changed(self, change)
            case PodSeen(facts=facts, listed=listed):
                return _pod_seen(self, facts, listed=listed)
            case PodGone(key=key, uid=uid):
                return _pod_gone(self, key, uid)
            case Held() | HoldsDropped():
                return _holds_changed(self, change)
            case Reserved(reservation=reservation):
                return _reserved(self, reservation)
            case Released():
                return _released(self, change)
            case PodsForgotten():
                states = {name: NodeState().having(facts=s.facts) for name, s in self.nodes.items()}
                return _with(Ledger(old_claims=self.old_claims), states)
            case _:
                assert_never(change)

    def seen_by(self, uid: PodUid) -> Mapping[NodeName, NodeState]:
        """Return the nodes as a pod should see them: what is kept for it is free for it."""
        own, nodes = self.own_of(uid), self.nodes.flat()
        return {**nodes, **own} if own else nodes

    def own_of(self, uid: PodUid) -> dict[NodeName, NodeState]:
        """Return the nodes that a pod sees otherwise than others do."""
        return {name: self.nodes[name].without(uid) for name in _keeping(self, uid)}

    def waiting(self, key: PodKey, uid: PodUid) -> PodFacts | None:
        """Return the pod of that name and UID, if it is known and still waits to be placed."""
        pod = self.pods.get(key)
        return pod if pod is not None and pod.uid == uid and pod.waits else None

    def sent_to(self, uid: PodUid) -> frozenset[NodeName]:
        """Return the nodes to which a Binding of the pod may be under way.

        The pod must not be tried elsewhere meanwhile: it would read the devices of one node on the
        other.
        """
        return frozenset(r.node for r in self.reservations.get(uid, ()) if r.sent)

    def may_be_told(self, claim: ClaimKey) -> bool:
        """Tell whether a ConfigMap of that name may exist although no pod was bound with it."""
        return claim in self.old_claims or self.begun.get(claim) is not None

    def rival(self, pod: PodFacts) -> PodFacts | None:
        """Return another pod that named the same device list before this one, if there is one.

        Bound pods come first, ended ones included, for their ConfigMap exists; then the older.
        """
        keys = self.claims.get(pod.claim) if pod.claim is not None else None
        for key in keys or ():
            other = self.pods.get(key)
            if other is not None and other.uid != pod.uid and _precedence(other) < _precedence(pod):
                return other
        return None


def _node_changed(ledger: Ledger, change: NodeSeen | NodeGone) -> Ledger:
    state = ledger.nodes.get(change.name, NodeState())
    if isinstance(change, NodeGone):
        return ledger if state.facts is None else _with(ledger, {change.name: state.gone()})
    if state.facts == change.facts:
        return ledger
    return _with(ledger, {change.name: state.having(facts=change.facts)})


def _pod_seen(ledger: Ledger, pod: PodFacts, *, listed: bool) -> Ledger:
    known = ledger.pods.get(pod.key)
    if known is not None and known.uid != pod.uid:
        ledger, known = _pod_gone(ledger, known.key, known.uid), None
    if known is not None and (known == pod or _older(pod, than=known)):
        return ledger
    begun = pod.waits and (listed or (pod.claim is not None and ledger.may_be_told(pod.claim)))
    after = replace(
        ledger,
        pods=ledger.pods.set(pod.key, pod),
        claims=_claimed(ledger.claims, pod, before=known),
        begun=_begun(ledger.begun, pod.claim, now=begun),
    )
    states = _placed(ledger, pod)
    if pod.waits:
        return _with(after, states)
    return _kept_no_more(after, pod.uid, states)


def _pod_gone(ledger: Ledger, key: PodKey, uid: PodUid) -> Ledger:
    known = ledger.pods.get(key)
    states: Mapping[NodeName, NodeState] = {}
    if known is not None and known.uid == uid:
        old = ledger.old_claims
        if known.claim is not None:
            old = {**old, known.claim: None}
            if len(old) > MEMORY_OF_CLAIMS:
                old = dict(list(old.items())[1:])
        states = _placed(ledger, replace(known, ended=True))
        ledger = replace(
            ledger,
            pods=ledger.pods.set(key, None),
            claims=_claimed(ledger.claims, None, before=known),
            begun=_begun(ledger.begun, known.claim, now=False),
            old_claims=old,
        )
    return _kept_no_more(ledger, uid, states)


def _placed(ledger: Ledger, pod: PodFacts) -> dict[NodeName, NodeState]:
    """Return the state of the pod's node with the pod in it, or out of it when it has ended."""
    if pod.node is None:
        return {}
    state = ledger.nodes.get(pod.node, NodeState())
    if not pod.ended:
        return {pod.node: state.having(pods={**state.pods, pod.uid: pod})}
    if pod.uid in state.pods:
        return {
            pod.node: state.having(pods=_less(state.pods, pod.uid), ended=_remembered(state, pod))
        }
    if pod.uid in state.ended or state.facts is None:
        return {}
    return {pod.node: state.having(ended=_remembered(state, pod))}


def _remembered(state: NodeState, pod: PodFacts) -> tuple[PodUid, ...]:
    return (*state.ended, pod.uid)[-MEMORY_OF_ENDED:]


def _keeping(ledger: Ledger, uid: PodUid) -> set[NodeName]:
    """Return the nodes that keep something for a pod that is not seen bound yet."""
    names = {reservation.node for reservation in ledger.reservations.get(uid, ())}
    if (hold := ledger.holds.get(uid)) is not None:
        names.add(hold.node)
    return names


def _kept_no_more(ledger: Ledger, uid: PodUid, states: Mapping[NodeName, NodeState]) -> Ledger:
    """Return the ledger with these new states, and nothing reserved or held for a pod any more."""
    names = _keeping(ledger, uid)
    if not names:
        return _with(ledger, states)
    freed = {name: (states.get(name) or ledger.nodes[name]).without(uid) for name in names}
    return replace(
        _with(ledger, {**states, **freed}),
        reservations=_less(ledger.reservations, uid),
        holds=_less(ledger.holds, uid),
    )


def _holds_changed(ledger: Ledger, change: Held | HoldsDropped) -> Ledger:
    if isinstance(change, HoldsDropped):
        states, holds = _unheld(ledger, change.uids)
        return replace(_with(ledger, states), holds=holds) if states else ledger
    hold = change.hold
    states, holds = _unheld(ledger, (hold.uid,))
    state = states.get(hold.node) or ledger.nodes.get(hold.node, NodeState())
    states[hold.node] = state.having(holds={**state.holds, hold.uid: hold})
    return replace(_with(ledger, states), holds={**holds, hold.uid: hold})


def _unheld(
    ledger: Ledger, uids: tuple[PodUid, ...]
) -> tuple[dict[NodeName, NodeState], Mapping[PodUid, Hold]]:
    """Return the states that change when holds are dropped, and the holds that are left."""
    states: dict[NodeName, NodeState] = {}
    for uid in uids:
        if (hold := ledger.holds.get(uid)) is not None:
            state = states.get(hold.node) or ledger.nodes[hold.node]
            states[hold.node] = state.having(holds=_less(state.holds, uid))
    return states, _less(ledger.holds, *uids) if states else ledger.holds


def _reserved(ledger: Ledger, reservation: Reservation) -> Ledger:
    uid, node = reservation.uid, reservation.node
    states, holds = _unheld(ledger, (uid,))
    state = states.get(node) or ledger.nodes.get(node, NodeState())
    states[node] = state.having(reserved={**state.reserved, uid: reservation})
    others = tuple(r for r in ledger.reservations.get(uid, ()) if r.node != node)
    told = bool(reservation.assignment.containers)
    return replace(
        _with(ledger, states),
        holds=holds,
        begun=_begun(ledger.begun, reservation.claim, now=True) if told else ledger.begun,
        reservations={**ledger.reservations, uid: (*others, reservation)},
    )


def _released(ledger: Ledger, change: Released) -> Ledger:
    kept = ledger.reservations.get(change.uid, ())
    left = tuple(r for r in kept if (r.node, r.assignment.epoch) != (change.node, change.epoch))
    if left == kept:
        return ledger
    state = ledger.nodes[change.node]
    state = state.having(reserved=_less(state.reserved, change.uid))
    reservations = _less(ledger.reservations, change.uid)
    if left:
        reservations[change.uid] = left
    return replace(_with(ledger, {change.node: state}), reservations=reservations)


def _with(ledger: Ledger, states: Mapping[NodeName, NodeState]) -> Ledger:
    """Return a ledger with these states in place of the old ones; vacant ones are dropped."""
    if not states:
        return ledger
    changes = {name: None if state.vacant else state for name, state in states.items()}
    return replace(ledger, nodes=ledger.nodes.having(changes))


def _older(pod: PodFacts, *, than: PodFacts) -> bool:
    """Tell whether a pod was read before what is known of it: nothing is unbound or revived."""
    return (than.node is not None and pod.node != than.node) or (than.ended and not pod.ended)


def _precedence(pod: PodFacts) -> tuple[bool, str, PodUid]:
    return pod.node is None, pod.created, pod.uid


def _claimed(
    claims: Shards[ClaimKey, tuple[PodKey, ...]], pod: PodFacts | None, *, before: PodFacts | None
) -> Shards[ClaimKey, tuple[PodKey, ...]]:
    """Return who names which device list after a pod came, changed, or went (None)."""
    old = before.claim if before is not None else None
    new = pod.claim if pod is not None else None
    if old == new:
        return claims
    if before is not None and old is not None:
        keys = tuple(key for key in claims.get(old) or () if key != before.key)
        claims = claims.set(old, keys or None)
    if pod is not None and new is not None:
        claims = claims.set(new, (*(claims.get(new) or ()), pod.key))
    return claims


def _begun(
    begun: Shards[ClaimKey, bool], claim: ClaimKey | None, *, now: bool
) -> Shards[ClaimKey, bool]:
    if claim is None or (begun.get(claim) is not None) == now:
        return begun
    return begun.set(claim, True if now else None)


def _less(mapping: Mapping[PodUid, V], *uids: PodUid) -> dict[PodUid, V]:
    return {uid: value for uid, value in mapping.items() if uid not in uids}
