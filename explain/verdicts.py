"""Node by node, why a pod cannot be there: the extender's own rules and what they leave open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from explain.barriers import Rules, barrier
from explain.causes import Cause
from explain.facts import Facts
from explain.leases import is_silent
from explain.scheduler_words import OF_REASON
from extender.placement.facts import PodFacts, read_pod
from extender.placement.fit import Ask, ask_of
from extender.placement.layout import Layouts
from extender.placement.nodes import read_node
from extender.placement.reasons import Reason
from extender.placement.shortlist import Choice, Standing
from extender.placement.state import NodeState, state_of
from extender.placement.strategies import strategy
from gpus.annotations import PATH, PATH_REASON
from gpus.demand import Demand
from gpus.model import GPU_MEMORY_RESOURCE, GPU_RESOURCE, Path, PodUid
from gpus.wishes import Policy, Wishes
from kube.objects import Lease, Node

#: Labels by which node-feature-discovery and gpu-feature-discovery say that a card is there.
_CARD_LABELS = (
    "feature.node.kubernetes.io/pci-10de.present",
    "feature.node.kubernetes.io/pci-0300_10de.present",
    "feature.node.kubernetes.io/pci-0302_10de.present",
    "nvidia.com/gpu.present",
)
#: Rejections behind which an agent that no longer speaks may stand.
_OF_AN_AGENT = (Cause.AGENT_MISSING, Cause.SETTLING, Cause.UNHEALTHY, Cause.STALE_ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why one node does not take the pod; `FITS` where nothing that was read speaks against it."""

    node: str
    cause: Cause
    detail: str = ""
    state: NodeState


class Judge:
    """Judges nodes for what one pod asks; equal nodes are judged once.

    `listed` tells whether the pod's containers read their devices from a ConfigMap.
    """

    def __init__(self, demand: Demand, *, listed: bool) -> None:
        self.ask = ask_of(demand, listed=listed)
        self._standing = _standing(self.ask)
        #: What the pod would be told without one of its wishes.
        self._without = {
            cause: _standing(ask_of(replace(demand, wishes=wishes), listed=listed))
            for cause, wishes in _lesser(demand.wishes)
        }

    def reason(self, state: NodeState) -> Reason | None:
        """Return the extender's reason, None where the node fits."""
        verdict = self._standing.verdict(state)
        return verdict if isinstance(verdict, Reason) else None

    def cause(self, state: NodeState) -> Cause:
        """Return the cause that the extender's reason stands for."""
        reason = self.reason(state)
        if reason is None:
            return Cause.FITS
        if reason is Reason.OTHER_KIND:
            return self._of_kind(state)
        return OF_REASON[reason]

    def fits_without(self, state: NodeState) -> list[Cause]:
        """Return the wishes without any one of which the node could take the pod now."""
        return [
            cause
            for cause, standing in self._without.items()
            if not isinstance(standing.verdict(state), Reason)
        ]

    def _of_kind(self, state: NodeState) -> Cause:
        asked = dict(self.ask.totals)
        total = state.facts.total if state.facts is not None else {}
        if GPU_MEMORY_RESOURCE in asked and state.path is not Path.ANNOTATION:
            return Cause.SHARE
        if not any(total.get(name) for name in asked) and GPU_MEMORY_RESOURCE not in asked:
            return Cause.KIND
        for cause, standing in self._without.items():
            if standing.verdict(state) is not Reason.OTHER_KIND:
                return cause
        return Cause.MEMORY if GPU_MEMORY_RESOURCE in asked else Cause.KIND


def states_of(facts: Facts) -> dict[str, NodeState]:
    """Return the nodes as the extender sees them, but for what it has under way this instant."""
    by_node: dict[str, dict[PodUid, PodFacts]] = {}
    for pod in facts.gpu_pods or ():
        found = facts.pod_facts.get(PodUid(pod.metadata.uid)) or read_pod(pod)
        if found.holds:
            by_node.setdefault(str(found.node), {})[found.uid] = found
    layouts = Layouts()
    return {
        node.metadata.name: state_of(
            facts=facts.node_facts.get(node.metadata.name) or read_node(node, layouts=layouts),
            pods=by_node.get(node.metadata.name, {}),
            reserved={},
            holds={},
        )
        for node in facts.nodes or ()
    }


def verdicts(facts: Facts, judge: Judge, states: Mapping[str, NodeState]) -> list[Verdict]:
    """Return the verdict of every node."""
    rules = Rules.of(facts.spec)
    found = []
    for node in facts.nodes or ():
        name = node.metadata.name
        state = states[name]
        lease = (facts.leases or {}).get(name)
        cause, detail = _verdict(judge.cause(state), node, rules, _Agent(lease, facts.now))
        found.append(Verdict(node=name, cause=cause, detail=detail, state=state))
    return found


@dataclass(frozen=True, slots=True)
class _Agent:
    lease: Lease | None
    now: datetime

    @property
    def silent(self) -> bool:
        return self.lease is not None and is_silent(self.lease, now=self.now)

    @property
    def since(self) -> str:
        return (self.lease.spec.renew_time if self.lease is not None else None) or "ever"


def _verdict(cause: Cause, node: Node, rules: Rules, agent: _Agent) -> tuple[Cause, str]:
    """Refine what the extender says by what it does not look at."""
    annotations = node.metadata.annotations or {}
    if cause is Cause.AGENT_MISSING or (cause is Cause.NO_GPU and _has_zero(node)):
        cause = Cause.STALE_ZERO if _has_zero(node) else Cause.AGENT_MISSING
    elif cause is Cause.NO_GPU and PATH not in annotations and _has_card(node):
        cause = Cause.AGENT_MISSING
    if cause in _OF_AN_AGENT and agent.silent:
        return Cause.AGENT_SILENT, f"its agent was heard of last at {agent.since}"
    if cause.rank > Cause.SELECTOR.rank or cause in (Cause.STALE_ZERO, Cause.AGENT_MISSING):
        return cause, ""
    if (found := barrier(rules, node)) is not None:
        return found.cause, found.detail
    if cause is Cause.SETTLING and _has_zero(node):
        cause = Cause.STALE_ZERO
    if cause in (Cause.SETTLING, Cause.STALE_ZERO):
        return cause, annotations.get(PATH_REASON, "")[:300]
    return cause, ""


def _has_zero(node: Node) -> bool:
    """Tell whether kubelet would refuse GPU pods because of a key that nobody serves."""
    return str((node.status.capacity or {}).get(GPU_RESOURCE, "")) == "0"


def _has_card(node: Node) -> bool:
    labels = node.metadata.labels or {}
    return any(labels.get(label) == "true" for label in _CARD_LABELS)


def _lesser(wishes: Wishes) -> Iterable[tuple[Cause, Wishes]]:
    """Yield each wish that narrows, as the cause that it may be, and all wishes but that one."""
    if wishes.min_memory:
        yield Cause.MEMORY, replace(wishes, min_memory=0)
    if wishes.min_compute is not None:
        yield Cause.COMPUTE, replace(wishes, min_compute=None)
    if wishes.uuids or wishes.excluded:
        yield Cause.UUID, replace(wishes, uuids=frozenset(), excluded=frozenset())
    if wishes.products:
        yield Cause.PRODUCT, replace(wishes, products=())
    if wishes.topology is not None:
        yield Cause.NOT_CONNECTED, replace(wishes, topology=None)


def _standing(ask: Ask) -> Standing:
    return Standing(ask, Choice(rank=strategy(Policy.BINPACK), limit=0))
