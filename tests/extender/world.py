"""A model of the API server, its watches, and extenders that lead one after the other.

The model is the truth: it stores pods, applies Bindings once and only of the current epoch, and
tells its watchers late, twice, or by a new listing. The clusters under test know only what they are
told. Calls that get no answer may take effect later, or never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from extender.cluster import Bid, Settled
from extender.filtering import Filter
from extender.patience import Patience
from extender.placement.reasons import Rejection
from extender.placement.shortlist import Choice
from extender.placement.state import Reservation
from extender.placement.strategies import binpack
from extender.waking.waiting import Waiting
from gpus.annotations import ASSIGNED
from gpus.model import Assignment, Health, NodeName
from kube.reflector import EventKind
from tests.builders import NodeBuilder, PodBuilder, node, pod
from tests.extender.ledgers import Told, facts

NODES = ("ann", "plug")
POD_NAMES = ("a", "b", "c", "d")
#: So few that two pods seldom fit side by side: every mistake shows at once.
GPUS = 2
GIB = 1 << 30
#: Of one GPU: any two shares fit side by side, but for two large ones; no three do.
MEMORY = 16 * GIB
SHARES = ("6Gi", "9Gi")
WISHES = (
    {"uuid": "GPU-ann-1"},
    {"exclude_uuid": "GPU-ann-0"},
    {"product": "*H100*", "policy": "spread"},
    {"min_memory": "16Gi", "topology": "numa"},
)

#: Chooses one of several; what it chooses makes the run.
Pick = Callable[[Sequence[Any]], Any]


@dataclass(slots=True)
class Leader:
    """One leadership: what it knows, and what is on its way to it."""

    epoch: int
    told: Told = field(default_factory=Told)
    pods: deque[tuple[EventKind, PodBuilder]] = field(default_factory=deque)
    nodes: deque[tuple[EventKind, NodeBuilder]] = field(default_factory=deque)
    listed: dict[str, PodBuilder] = field(default_factory=dict)

    def hear_of_pod(self, kind: EventKind, builder: PodBuilder) -> None:
        """Deliver one event, as the reflector does."""
        if kind is EventKind.DELETED:
            self.listed.pop(builder.name, None)
        else:
            self.listed[builder.name] = builder
        self.told.pod(builder, kind)


@dataclass(slots=True)
class Flight:
    """A Binding on its way: it may still take effect. `awaited` while its caller listens."""

    reservation: Reservation
    leader: Leader
    awaited: bool = True


class World:
    """Everything that can happen, as methods that take `pick`."""

    def __init__(self) -> None:
        self.serial = 0
        self.store: dict[str, PodBuilder] = {}
        #: What bound pods were given, by UID, whatever becomes of their annotations.
        self.given: dict[str, Assignment] = {}
        self.health: dict[int, Health] = {}
        self.there = set(NODES)
        self.flights: list[Flight] = []
        self.leaders: list[Leader] = []
        self.take_the_lease(lambda options: options[0])
        self.hear_of_nodes(lambda options: options[0])

    # Users, kubelets and node agents.

    def create(self, pick: Pick) -> None:
        """Create a pod of a name that is free."""
        free = [name for name in POD_NAMES if name not in self.store]
        if not free:
            return
        self.serial += 1
        created = pod(pick(free)).uid(f"uid-{self.serial}").wants(gpus=pick((1, 2)))
        kind = pick(("whole", "sidecar", "share", "share", "share", "wish"))
        if kind == "sidecar":
            created = created.wants(gpus=1).sidecar("s", gpus=1)
        elif kind == "share":
            created = pod(created.name).uid(f"uid-{self.serial}").wants(memory=pick(SHARES))
        elif kind == "wish":
            created = created.wants(gpus=1).wishing(**pick(WISHES))
        self._put(created.devices_from(f"gpudetour-devices-{self.serial:020}"), EventKind.ADDED)

    def delete(self, pick: Pick) -> None:
        """Delete a pod."""
        if self.store:
            gone = self.store.pop(pick(sorted(self.store)))
            for leader in self.leaders:
                leader.pods.append((EventKind.DELETED, gone))

    def end(self, pick: Pick) -> None:
        """Let the containers of a bound pod end."""
        bound = [name for name in sorted(self.store) if self.store[name].node]
        if bound:
            self._put(self.store[pick(bound)].phase(pick(("Succeeded", "Failed"))))

    def touch(self, pick: Pick) -> None:
        """Change a pod in a way that means nothing."""
        if self.store:
            self.serial += 1
            name = pick(sorted(self.store))
            self._put(self.store[name].annotated("touched", str(self.serial)))

    def scribble(self, pick: Pick) -> None:
        """Spoil the assignment of a bound pod, which the shipped policies let nobody do."""
        bound = [name for name in sorted(self.store) if self.store[name].node]
        if bound and pick((False, True)):
            self._put(self.store[pick(bound)].annotated(ASSIGNED, "{"))

    def wish_otherwise(self, pick: Pick) -> None:
        """Change what a pending pod wishes for, or what one that runs would."""
        if self.store:
            self._put(self.store[pick(sorted(self.store))].wishing(**pick(WISHES)))

    def sicken_or_heal(self, pick: Pick) -> None:
        """Change the health of a card."""
        index = pick(range(GPUS))
        well = self.health.get(index, Health.HEALTHY) is Health.HEALTHY
        self.health[index] = Health.LOST if well and pick((False, True)) else Health.HEALTHY
        self._tell_of_node("ann")

    def remove_or_return_node(self, pick: Pick) -> None:
        """Delete a Node object, which is rare, or create it again."""
        missing = [name for name in NODES if name not in self.there]
        name = missing[0] if missing else pick(NODES)
        if missing or pick((False, False, True)):
            self.there ^= {name}
            self._tell_of_node(name)

    # The extender, as leader or as one that does not know yet that it is none any more.

    def schedule(self, pick: Pick) -> None:
        """Ask filter about a pending pod, and bind it to the best node."""
        pending = [name for name in sorted(self.store) if not self.store[name].node]
        if not pending:
            return
        leader, builder = self._somebody(pick), self.store[pick(pending)]
        chooser = Filter(
            leader.told.cluster,
            choice=Choice(rank=binpack, limit=0),
            hold_seconds=5,
            patience=Patience(0),
            waiting=Waiting(),
        )
        found = chooser.filter(facts(builder), {NodeName(name) for name in NODES})
        if found.nodes:
            self._bind(leader, builder, found.nodes[0])

    def bind_without_asking(self, pick: Pick) -> None:
        """Bind any pod anywhere."""
        if self.store:
            name = pick(sorted(self.store))
            self._bind(self._somebody(pick), self.store[name], NodeName(pick(NODES)))

    def bind_again(self, pick: Pick) -> None:
        """Bind a pod again to where it was bound before: the scheduler lost patience."""
        leader = self._somebody(pick)
        known = leader.told.cluster.snapshot().reservations.values()
        again = [r for kept in known for r in kept if r.name in self.store]
        if again:
            chosen = pick(again)
            self._bind(leader, self.store[chosen.name], chosen.node)

    def binding_arrives(self, pick: Pick) -> None:
        """Let a Binding take effect if it may.

        It may be refused for another reason (429), its answer may get lost, and a proxy may repeat
        it later.
        """
        if not self.flights:
            return
        flight = self.flights.pop(pick(range(len(self.flights))))
        refused = pick((False, False, True))
        taken = not refused and self._take(flight.reservation)
        if not flight.awaited:
            return
        cluster = flight.leader.told.cluster
        answered = pick((True, True, False))
        if not answered or taken or (not refused and self._bound(flight.reservation)):
            cluster.sent(flight.reservation)
        else:
            cluster.release(flight.reservation)
        if not answered and pick((True, False)):
            self.flights.append(Flight(flight.reservation, flight.leader, awaited=False))

    def answer_is_given_up(self, pick: Pick) -> None:
        """Let a caller stop waiting for an answer; its Binding flies on."""
        awaited = [flight for flight in self.flights if flight.awaited]
        if awaited:
            flight = pick(awaited)
            flight.leader.told.cluster.sent(flight.reservation)
            flight.awaited = False

    def janitor_looks(self, pick: Pick) -> None:
        """Let all requests die that nobody waits for, then settle what is overdue."""
        del pick
        self.flights = [flight for flight in self.flights if flight.awaited]
        flying = [id(flight.reservation) for flight in self.flights]
        for leader in self.leaders:
            for reservation in leader.told.cluster.overdue(0):
                if id(reservation) not in flying and not self._bound(reservation):
                    leader.told.cluster.release(reservation, even_sent=True)

    # The watches, and the Lease.

    def hear_of_pods(self, pick: Pick) -> None:
        """Deliver some events of pods, in order, some of them twice."""
        leader = self._somebody(pick)
        for _ in range(min(pick((1, 2, 9)), len(leader.pods))):
            kind, builder = leader.pods.popleft()
            leader.hear_of_pod(kind, builder)
            if kind is not EventKind.DELETED and pick((True, False)):
                leader.hear_of_pod(EventKind.MODIFIED, builder)

    def hear_of_nodes(self, pick: Pick) -> None:
        """Deliver all events of nodes that are on their way."""
        leader = self._somebody(pick)
        while leader.nodes:
            kind, builder = leader.nodes.popleft()
            leader.told.node(builder, kind)

    def list_pods_again(self, pick: Pick) -> None:
        """Cut the watch and list, as the reflector does."""
        self._list(self._somebody(pick))

    def take_the_lease(self, pick: Pick) -> None:
        """Let another process lead; the one before goes on for a while without knowing."""
        del pick
        leader = Leader(self.epoch + 1)
        for name in sorted(self.there):
            leader.nodes.append((EventKind.ADDED, self.built(name)))
        self.leaders = [*self.leaders[-1:], leader]
        self._list(leader)

    @property
    def epoch(self) -> int:
        """What the Lease says, and the fencing policy compares."""
        return self.leaders[-1].epoch if self.leaders else 0

    def built(self, name: str) -> NodeBuilder:
        """Return a node as it is now."""
        builder = node(name).with_gpus(GPUS).cards(memory_bytes=MEMORY)
        if name == "plug":
            return builder.inventory().plugin_path()
        for index, value in self.health.items():
            builder = builder.health(value, index)
        return builder.annotation_path()

    def calm_down(self) -> None:
        """Let every leader hear of everything."""
        for leader in self.leaders:
            while leader.nodes:
                kind, builder = leader.nodes.popleft()
                leader.told.node(builder, kind)
            self._list(leader)

    def _somebody(self, pick: Pick) -> Leader:
        leader: Leader = pick((self.leaders[-1], self.leaders[-1], self.leaders[0]))
        return leader

    def _put(self, builder: PodBuilder, kind: EventKind = EventKind.MODIFIED) -> None:
        self.store[builder.name] = builder
        for leader in self.leaders:
            leader.pods.append((kind, builder))

    def _tell_of_node(self, name: str) -> None:
        kind = EventKind.MODIFIED if name in self.there else EventKind.DELETED
        for leader in self.leaders:
            leader.nodes.append((kind, self.built(name)))

    def _list(self, leader: Leader) -> None:
        leader.pods.clear()
        for name, old in list(leader.listed.items()):
            new = self.store.get(name)
            if new is None or facts(new).uid != facts(old).uid:
                leader.hear_of_pod(EventKind.DELETED, old)
        for builder in self.store.values():
            leader.hear_of_pod(EventKind.MODIFIED, builder)

    def _bind(self, leader: Leader, builder: PodBuilder, on: NodeName) -> None:
        asked = facts(builder)
        if asked.demand is None:
            return  # wishes that contradict each other
        if any(f.reservation.uid == asked.uid and f.awaited for f in self.flights):
            return  # one call at a time works on a pod
        bid = Bid(pod=asked, demand=asked.demand, node=on, epoch=leader.epoch)
        outcome = leader.told.cluster.reserve(bid)
        if not isinstance(outcome, Rejection | Settled):
            self.flights.append(Flight(outcome, leader))

    def _bound(self, reservation: Reservation) -> bool:
        stored = self.store.get(reservation.name)
        if stored is None:
            return False
        return (stored.node, facts(stored).uid) == (reservation.node, reservation.uid)

    def _take(self, reservation: Reservation) -> bool:
        """Let a Binding take effect, as the fencing policy and BindingREST allow."""
        stored = self.store.get(reservation.name)
        if stored is None or stored.node or reservation.assignment.epoch != self.epoch:
            return False
        if facts(stored).uid != reservation.uid:
            return False
        given = reservation.assignment
        bound = stored.on(reservation.node).assigned(given.containers, share=given.share_bytes)
        self.given[reservation.uid] = given
        self._put(bound)
        return True
