"""What can happen to the ledger, as values."""

from __future__ import annotations

from dataclasses import dataclass

from extender.placement.facts import NodeFacts, PodFacts, PodKey
from extender.placement.state import Hold, Reservation
from gpus.model import NodeName, PodUid


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A Node was added or changed."""

    name: NodeName
    facts: NodeFacts


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A Node was deleted."""

    name: NodeName


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A GPU pod was added or changed.

    `listed` tells that it was there before this leadership began.
    """

    facts: PodFacts
    listed: bool = False


@dataclass(frozen=True, slots=True)
class PodGone:
    """A GPU pod was deleted from the API server."""

    key: PodKey
    uid: PodUid


@dataclass(frozen=True, slots=True)
class Held:
    """Filter keeps a place for a pod; replaces the hold that the pod had."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class HoldsDropped:
    """Holds ended: used, given up, or out of time."""

    uids: tuple[PodUid, ...]


@dataclass(frozen=True, slots=True)
class Reserved:
    """A bind began; drops the pod's hold and replaces its reservation on the same node."""

    reservation: Reservation


@dataclass(frozen=True, slots=True)
class Released:
    """A bind failed for certain; `epoch` tells the reservation from one of a later leadership."""

    uid: PodUid
    node: NodeName
    epoch: int


@dataclass(frozen=True, slots=True)
class PodsForgotten:
    """A new leadership begins: who holds what is about to be listed anew."""


Change = (
    NodeSeen
    | NodeGone
    | PodSeen
    | PodGone
    | Held
    | HoldsDropped
    | Reserved
    | Released
    | PodsForgotten
)
