"""From facts to an explanation. Pure: whatever is missing or wrong, something is always named."""

from __future__ import annotations

from collections.abc import Iterator

from explain import openings, parts, placed, refusals, scheduler_words
from explain.causes import Cause
from explain.facts import Facts
from explain.findings import Explanation, Finding, Placement, State
from explain.verdicts import Judge, Verdict, states_of, verdicts
from extender.placement.facts import PodFacts, read_pod
from gpus.annotations import DEVICES_FROM, GPU_LABEL, GPU_LABEL_VALUE
from gpus.demand import Demand
from gpus.model import GPU_MEMORY_RESOURCE
from gpus.quantity import written
from kube.objects import Pod


def explain(facts: Facts) -> Explanation:
    """Return why the pod waits or was refused, or why it got what it has."""
    pod = facts.pod
    if pod is None:
        return _told(facts, State.REFUSED, list(refusals.findings(facts)))
    seen = read_pod(pod)
    if seen.node is not None:
        where = placed.placement(facts, pod, seen)
        found = list(placed.findings(facts, pod, seen, where))
        state = State.ENDED if seen.ended else State.PLACED
        return _told(facts, state, found, seen=seen, placement=where)
    if seen.ended:
        saw = f"its phase is {pod.status.phase}, and it never had a node"
        return _told(facts, State.ENDED, [Finding(cause=Cause.ENDED, saw=saw)], seen=seen)
    return _told(facts, State.WAITS, _waiting(facts, pod, seen), seen=seen)


def _asks(seen: PodFacts) -> str:
    """Return what a pod asks for, as people write it."""
    if seen.demand is None:
        return "what cannot be read" if seen.fault else "no GPU"
    totals = seen.demand.totals
    return ", ".join(
        f"{written(count) if name == GPU_MEMORY_RESOURCE else count} {name}"
        for name, count in totals.items()
    )


def _told(
    facts: Facts,
    state: State,
    found: list[Finding],
    *,
    seen: PodFacts | None = None,
    placement: Placement | None = None,
) -> Explanation:
    return Explanation(
        namespace=facts.namespace,
        name=facts.name,
        state=state,
        asks=_asks(seen) if seen is not None else "",
        findings=tuple(found),
        placement=placement,
        scheduler=parts.scheduling_message(facts) if state is State.WAITS else "",
        unreadable=facts.unreadable,
    )


def _waiting(facts: Facts, pod: Pod, seen: PodFacts) -> list[Finding]:
    found = list(_of_pod(facts, pod, seen))
    if seen.demand is not None or seen.fault:
        found += parts.findings(facts)  # no others ever reach the extender
    if pod.status.nominated_node_name:
        found.append(_making_room(pod))
    if seen.demand is not None and facts.nodes is not None:
        found += _of_nodes(facts, seen.demand)
    elif not seen.fault:
        found += _by_scheduler(facts)
    if not found:
        told = parts.scheduling_message(facts)
        saw = f"the scheduler says: {told[:600]}" if told else "nothing was said of the pod yet"
        ends = (f"kubectl -n {facts.namespace} describe pod {facts.name}",)
        found = [Finding(cause=Cause.UNKNOWN, saw=saw, ends=ends)]
    # Stable: of equal rank, larger groups first, then by what was seen.
    return sorted(found, key=lambda each: (each.cause.rank, -each.count, each.saw, each.nodes))


def _of_pod(facts: Facts, pod: Pod, seen: PodFacts) -> Iterator[Finding]:
    """Yield what is the matter with the pod itself."""
    if pod.metadata.deletion_timestamp is not None:
        saw = f"it was deleted at {pod.metadata.deletion_timestamp}"
        ends = (f"kubectl -n {facts.namespace} get pod {facts.name} -o yaml | grep -A3 finalizers",)
        yield Finding(cause=Cause.DELETING, saw=saw, ends=ends)
    if seen.fault:
        ends = ("change the pod as that says, and create it again",)
        yield Finding(cause=Cause.IMPOSSIBLE, saw=seen.fault, ends=ends)
    gates = facts.spec.get("schedulingGates")
    if isinstance(gates, list) and gates:
        names = [str(gate.get("name", "")) for gate in gates if isinstance(gate, dict)]
        saw = f"gates: {', '.join(names) or 'without a name'}"
        yield Finding(cause=Cause.GATED, saw=saw, ends=("whoever set the gates removes them",))
    name = pod.spec.runtime_class_name
    if name and facts.runtime_classes is not None and name not in facts.runtime_classes:
        yield placed.missing_runtime_class(name)
    if seen.demand is not None:
        yield from _unadmitted(facts, pod, seen)


def _unadmitted(facts: Facts, pod: Pod, seen: PodFacts) -> Iterator[Finding]:
    """Yield that the webhook has not made the pod what it must be."""
    again = (
        "create the pod again; a controller does so when the pod is deleted:",
        f"kubectl -n {facts.namespace} delete pod {facts.name}",
    )
    if (pod.metadata.labels or {}).get(GPU_LABEL) != GPU_LABEL_VALUE:
        saw = f"it lacks the label {GPU_LABEL}, which the webhook gives to every pod with GPUs"
        yield Finding(cause=Cause.UNLABELLED, saw=saw, ends=again)
    elif not seen.listed:
        saw = f"it lacks the annotation {DEVICES_FROM}, which the webhook gives to such pods"
        yield Finding(cause=Cause.UNUSABLE, saw=saw, ends=again)
    else:
        for other in facts.gpu_pods or ():
            if _claim(other) == _claim(pod) and other.metadata.uid != pod.metadata.uid:
                key = f"{other.metadata.namespace}/{other.metadata.name}"
                saw = f"{key} has the same {DEVICES_FROM}: {seen.claim}"
                yield Finding(cause=Cause.UNUSABLE, saw=saw, ends=again)


def _claim(pod: Pod) -> tuple[str, str | None]:
    return pod.metadata.namespace, (pod.metadata.annotations or {}).get(DEVICES_FROM)


def _making_room(pod: Pod) -> Finding:
    node = pod.status.nominated_node_name
    return Finding(
        cause=Cause.MAKING_ROOM,
        saw=f"kube-scheduler evicts pods on {node} for it",
        ends=("by itself, when those have ended",),
        nodes=(node,),
        count=1,
    )


def _of_nodes(facts: Facts, demand: Demand) -> list[Finding]:
    # A pod that was not admitted is judged as if it had been: that cause is told before.
    judge = Judge(demand, listed=True)
    found = verdicts(facts, judge, states_of(facts))
    return list(openings.findings(facts, _as_scheduled(facts, found), judge))


def _as_scheduled(facts: Facts, found: list[Verdict]) -> list[Verdict]:
    """Tell the nodes that would fit by what else the scheduler has against them."""
    if not any(verdict.cause is Cause.FITS for verdict in found):
        return found
    cause, detail = Cause.FITS, ""
    told = scheduler_words.reasons(parts.scheduling_message(facts))
    short = [each.text for each in told if each.cause is Cause.RESOURCES]
    others = [each.text for each in told if each.cause is Cause.OTHER_REASON]
    if short:
        cause, detail = Cause.RESOURCES, f"the scheduler says: {', '.join(short)}"
    elif others:
        cause, detail = Cause.OTHER_REASON, f"the scheduler says: {', '.join(others)[:400]}"
    return [
        Verdict(node=each.node, cause=cause, detail=detail, state=each.state)
        if each.cause is Cause.FITS
        else each
        for each in found
    ]


def _by_scheduler(facts: Facts) -> Iterator[Finding]:
    """Yield what the scheduler counted, where the nodes themselves may not or need not be read."""
    for told in scheduler_words.reasons(parts.scheduling_message(facts)):
        ends = ("name and number of the nodes need the right to list nodes and pods",)
        if facts.nodes is not None:
            ends = (f"kubectl -n {facts.namespace} describe pod {facts.name}",)
        saw = f"the scheduler says: {told.text}"
        yield Finding(cause=told.cause, saw=saw, ends=ends, count=told.count)
