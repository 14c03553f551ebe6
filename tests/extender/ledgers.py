"""What the tests of the extender share: ledgers made of built pods and nodes."""

from __future__ import annotations

from collections.abc import Iterable

from extender.cluster import Bid, Cluster, Settled
from extender.placement.changes import NodeSeen, PodSeen
from extender.placement.facts import NodeFacts, PodFacts, read_pod
from extender.placement.fit import Ask, ask_of, fits
from extender.placement.layout import Layouts
from extender.placement.ledger import Ledger
from extender.placement.nodes import read_node
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import NodeState, Reservation
from gpus.model import DeviceId, NodeName
from kube.reflector import Event, EventKind
from tests.builders import NodeBuilder, PodBuilder


def ledger(nodes: Iterable[NodeBuilder] = (), pods: Iterable[PodBuilder] = ()) -> Ledger:
    """Return the ledger after these nodes and pods were seen."""
    result = Ledger()
    for node in nodes:
        result = result.apply(NodeSeen(NodeName(node.name), node_facts(node)))
    for pod in pods:
        result = result.apply(PodSeen(read_pod(pod.build())))
    return result


def state(node: NodeBuilder, *pods: PodBuilder) -> NodeState:
    """Return the state of one node with pods on it."""
    return ledger([node], [pod.on(node.name) for pod in pods]).nodes[NodeName(node.name)]


def node_facts(node: NodeBuilder) -> NodeFacts:
    """Return what is read of a node."""
    return read_node(node.build(), layouts=Layouts())


def facts(pod: PodBuilder) -> PodFacts:
    """Return what is read of a pod."""
    return read_pod(pod.build())


def ask(pod: PodBuilder) -> Ask:
    """Return what a pod comes down to in filter."""
    read = facts(pod)
    assert read.demand is not None
    return ask_of(read.demand, listed=read.claim is not None)


def reasons(pod: PodBuilder, node: NodeState) -> tuple[Reason, ...]:
    """Return why the node cannot take the pod; nothing when it can."""
    fit = fits(ask(pod), node)
    return fit.reasons if isinstance(fit, Rejection) else ()


def open_devices(state: NodeState) -> list[DeviceId]:
    """Return the devices that nobody has anything of, on the annotation path."""
    assert state.facts is not None
    assert state.facts.devices is not None
    return state.facts.devices.names(state.open)


class Told:
    """A cluster that is told of nodes and pods as the watches would."""

    def __init__(self, *nodes: NodeBuilder) -> None:
        self.now = 0.0
        self.cluster = Cluster(clock=lambda: self.now)
        for node in nodes:
            self.node(node)

    def node(self, node: NodeBuilder, kind: EventKind = EventKind.MODIFIED) -> None:
        """Deliver an event of a node."""
        self.cluster.on_node(Event(kind, node.build()))

    def pod(
        self, pod: PodBuilder, kind: EventKind = EventKind.MODIFIED, *, listed: bool = False
    ) -> None:
        """Deliver an event of a pod."""
        self.cluster.on_pod(Event(kind, pod.build()), listed=listed)

    def bid(
        self, pod: PodBuilder, node: str, *, epoch: int = 1
    ) -> Reservation | Rejection | Settled:
        """Try to reserve for a pod."""
        read = facts(pod)
        assert read.demand is not None
        return self.cluster.reserve(
            Bid(pod=read, demand=read.demand, node=NodeName(node), epoch=epoch)
        )

    def reserved(self, pod: PodBuilder, node: str, *, epoch: int = 1) -> Reservation:
        """Reserve for a pod; it must succeed."""
        outcome = self.bid(pod, node, epoch=epoch)
        assert isinstance(outcome, Reservation), outcome
        return outcome
