"""How many GPUs each namespace holds, from a ledger. Pure but for what it remembers of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from extender.placement.facts import NodeFacts, PodFacts
from extender.placement.ledger import Ledger
from extender.placement.state import NodeState
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    GPU_RESOURCE,
    MIG_RESOURCE_PREFIX,
    SHARED_GPU_RESOURCE,
    NodeName,
    ResourceName,
)

#: Compute slices of a GPU that can be cut up; of the A30 there are four (NVIDIA, MIG user guide).
_SLICES, _SLICES_OF_A30 = 7, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """GPUs that each namespace holds, parts of GPUs as fractions, and GPUs that there are."""

    held: Mapping[str, float] = field(default_factory=dict)
    installed: float = 0.0


class Holdings:
    """Sums up ledgers; a node that has not changed is not looked at again. For one thread."""

    def __init__(self) -> None:
        self._known: dict[NodeName, tuple[NodeState, Holding]] = {}

    def of(self, ledger: Ledger) -> Holding:
        """Return what is held now."""
        held: dict[str, float] = {}
        installed = 0.0
        known: dict[NodeName, tuple[NodeState, Holding]] = {}
        for name, state in ledger.nodes.items():
            before = self._known.get(name)
            if before is None or before[0] is not state:
                before = (state, holding_on(state))
            known[name] = before
            installed += before[1].installed
            for namespace, gpus in before[1].held.items():
                held[namespace] = held.get(namespace, 0.0) + gpus
        self._known = known
        return Holding(held=held, installed=installed)


def holding_on(state: NodeState) -> Holding:
    """Return what is held on one node."""
    held: dict[str, float] = {}
    for pod in state.pods.values():
        namespace = pod.key.partition("/")[0]
        gpus = _held_by(pod, state.facts)
        if gpus:
            held[namespace] = held.get(namespace, 0.0) + gpus
    return Holding(held=held, installed=_installed(state.facts))


def _installed(facts: NodeFacts | None) -> float:
    if facts is None:
        return 0.0
    if facts.devices is not None:
        return float(len(facts.devices.layout.cards))
    return float(facts.total.get(GPU_RESOURCE, 0))


def _held_by(pod: PodFacts, facts: NodeFacts | None) -> float:
    totals = pod.demand.totals if pod.demand is not None else {}
    return sum(count * _weight(name, pod, facts) for name, count in totals.items())


def _weight(name: ResourceName, pod: PodFacts, facts: NodeFacts | None) -> float:
    """How much of a GPU one unit of a resource is."""
    if name == GPU_MEMORY_RESOURCE:
        memory = _memory(pod, facts)
        return 1 / memory if memory else 0.0
    if name.startswith(MIG_RESOURCE_PREFIX):
        return _of_mig(name.removeprefix(MIG_RESOURCE_PREFIX), facts)
    if facts is not None and facts.devices is not None and name in facts.total:
        # A plugin that slices time advertises more of them than there are.
        cards = len(facts.devices.layout.cards)
        if name == SHARED_GPU_RESOURCE or facts.total[name] > cards:
            return cards / max(1, facts.total[name])
    return 1.0


def _of_mig(profile: str, facts: NodeFacts | None) -> float:
    """Of `1g.5gb`, `1g.10gb.me` or `1c.2g.10gb` the first number is that of compute slices."""
    digits = profile.partition("g" if profile.partition(".")[0].endswith("g") else "c")[0]
    cards = facts.devices.layout.cards if facts is not None and facts.devices is not None else ()
    of_a30 = any("A30" in (card.product or "").split() for card in cards if card.mig_enabled)
    slices = _SLICES_OF_A30 if of_a30 else _SLICES
    return min(1.0, int(digits) / slices) if digits.isdecimal() else 0.0


def _memory(pod: PodFacts, facts: NodeFacts | None) -> int:
    """Bytes of the GPU of which the pod has a share; of any of the node where it is not known."""
    if facts is None or facts.devices is None:
        return 0
    devices = facts.devices
    named = pod.assignment.devices() if pod.assignment is not None else frozenset()
    memory = {
        card: layout.memory_bytes or 0
        for card, layout in zip(devices.cards, devices.layout.cards, strict=True)
    }
    own = [memory[device] for device in named if memory.get(device)]
    return own[0] if own else max(memory.values(), default=0)
