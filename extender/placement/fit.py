"""Whether a node can take a pod now, and every reason why not. Counts only; which devices: assign.

| what is asked of resource r          | annotation path         | plugin path               |
|--------------------------------------|-------------------------|---------------------------|
| none here, but other GPU resources   | no GPU of the asked kind                            |
| more than there are                  | devices in `inventory`  | kubelet's capacity        |
| more than are healthy                | healthy in `inventory`  | kubelet's allocatable     |
| more than are free                   | not in any assignment   | not counted for any pod   |
"""

from __future__ import annotations

from dataclasses import dataclass

from extender.placement.facts import NodeFacts
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import NodeState
from gpus.demand import Demand
from gpus.model import Path, ResourceName


@dataclass(frozen=True, slots=True)
class Ask:
    """All that decides whether a pod fits a node; equal asks get equal verdicts.

    `listed` tells whether the pod's containers read their devices from a ConfigMap: the webhook
    sees to that, and only then can the annotation path hand devices to them.
    """

    totals: tuple[tuple[ResourceName, int], ...]
    listed: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """A node can take the pod: `left` devices of the asked kinds stay free.

    `vacant` tells that nobody holds any of them yet.
    """

    left: int
    vacant: bool


def ask_of(demand: Demand, *, listed: bool) -> Ask:
    """Return what a demand comes down to when nodes are filtered."""
    return Ask(tuple(sorted(demand.totals.items())), listed)


def fits(ask: Ask, state: NodeState) -> Fit | Rejection:
    """Tell whether the node has what is asked, free, now."""
    facts = state.facts
    if facts is None or (state.blocked is not None and state.blocked is not Reason.HOLDER_UNKNOWN):
        return Rejection((state.blocked or Reason.NODE_UNKNOWN,))
    reasons: list[Reason] = []
    left = healthy = 0
    for name, count in ask.totals:
        free, able = state.free.get(name, 0), facts.healthy.get(name, 0)
        if free < count:
            reasons.append(_lack(name, count, free=free, facts=facts))
        left += free - count
        healthy += able - count
    if state.blocked is not None:
        # Free or not cannot be said; a misfit that is permanent can.
        return Rejection((state.blocked, *(reason for reason in reasons if reason.permanent)))
    if facts.path is Path.ANNOTATION and not ask.listed:
        reasons.append(Reason.POD_TOO_OLD)
    return Rejection(tuple(reasons)) if reasons else Fit(left=left, vacant=left == healthy)


def _lack(name: ResourceName, count: int, *, free: int, facts: NodeFacts) -> Reason:
    total = facts.total.get(name, 0)
    if not total:
        return Reason.OTHER_KIND if any(facts.total.values()) else Reason.NO_GPU
    if count > total:
        return Reason.TOO_FEW
    if count > facts.healthy.get(name, 0):
        return Reason.UNHEALTHY
    return Reason.NOT_ENOUGH if free else Reason.IN_USE
