"""Nodes in groups of one cause, and what would let the pod in there. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from explain.causes import Cause
from explain.cures import AGENTS, cures
from explain.facts import Facts
from explain.findings import Finding
from explain.verdicts import Judge, Verdict
from extender.placement.state import NodeState
from extender.placement.victims import helps
from gpus import annotations as contract
from gpus.model import GPU_MEMORY_RESOURCE, Health, NodeInventory

#: Pods that are tried one by one whether their end would make room; then the search is given up.
_TRIED = 400
#: Inventories that are read to say what a group of nodes has instead.
_READ = 200
#: Causes whose detail tells one node from another; of all else one group is made.
_BY_DETAIL = (Cause.TAINT, Cause.SELECTOR, Cause.SETTLING, Cause.RESOURCES)

#: The annotation that a cause is about, where a wish is.
_WISH = {
    Cause.MEMORY: contract.MIN_MEMORY,
    Cause.COMPUTE: contract.MIN_COMPUTE,
    Cause.UUID: f"{contract.UUID} (or exclude-uuid)",
    Cause.PRODUCT: contract.PRODUCT,
    Cause.NOT_CONNECTED: contract.TOPOLOGY,
}


def findings(facts: Facts, verdicts: Sequence[Verdict], judge: Judge) -> Iterator[Finding]:
    """Yield one finding for each group of nodes; none takes the pod."""
    groups: dict[tuple[Cause, str], list[Verdict]] = {}
    for verdict in verdicts:
        detail = verdict.detail if verdict.cause in _BY_DETAIL else ""
        groups.setdefault((verdict.cause, detail), []).append(verdict)
    if not groups or set(groups) == {(Cause.NO_GPU, "")}:
        yield _no_gpu_nodes(len(verdicts))
        return
    for (cause, _), group in groups.items():
        holders = tuple(_holders(group, judge)) if cause in _HELD else ()
        yield Finding(
            cause=cause,
            saw=_saw(cause, group, facts),
            ends=tuple(_ends(cause, group, judge, holders)),
            nodes=tuple(sorted(verdict.node for verdict in group)),
            count=len(group),
            holders=holders,
        )


_HELD = (Cause.IN_USE, Cause.NOT_ENOUGH)


def _no_gpu_nodes(nodes: int) -> Finding:
    if nodes:
        saw = f"none of {nodes} nodes has a GPU, or an agent that tells of one"
    else:
        saw = "the cluster has no nodes"
    return Finding(
        cause=Cause.NO_GPU_NODES,
        saw=saw,
        ends=(
            "a node with a GPU and gpudetour's agent joins the cluster",
            AGENTS,
            "sudo gpudetour doctor    # on the node that should have one",
        ),
        count=nodes,
    )


def _saw(cause: Cause, group: Sequence[Verdict], facts: Facts) -> str:
    detail = group[0].detail
    match cause:
        case Cause.TAINT:
            return f"the pod does not tolerate {detail}"
        case Cause.PRODUCT:
            return f"they have {_list(_products(group, facts))}"
        case Cause.MEMORY:
            return f"the largest has {_largest(group, facts)}"
        case Cause.UNHEALTHY:
            return _list(_sick(group, facts)) or "more are asked for than are healthy"
        case Cause.HOLDER_UNKNOWN:
            return _list(_unclear(group)) or "a pod holds GPUs that nobody can name"
        case Cause.IN_USE | Cause.NOT_ENOUGH:
            return _use(group)
        case Cause.STALE_ZERO:
            return (
                detail or "node status says nvidia.com/gpu: 0, and no agent of gpudetour is there"
            )
    return detail or cause.title


def _ends(
    cause: Cause, group: Sequence[Verdict], judge: Judge, holders: tuple[str, ...]
) -> Iterator[str]:
    if cause in _HELD:
        yield from _room(group, judge, holders)
    yield from cures(cause, node=min(each.node for each in group), detail=group[0].detail)
    yield from _without_a_wish(group, judge)


def _without_a_wish(group: Sequence[Verdict], judge: Judge) -> Iterator[str]:
    """Yield each wish without which a node of the group could take the pod now."""
    if group[0].cause in (Cause.FITS, Cause.TAINT, Cause.SELECTOR, Cause.CORDONED, Cause.NOT_READY):
        return
    fitting: Counter[Cause] = Counter()
    for verdict in group:
        fitting.update(judge.fits_without(verdict.state))
    for cause, count in sorted(fitting.items(), key=lambda item: item[0].rank):
        yield f"without the annotation {_WISH[cause]} the pod would fit on {_nodes(count)} now"
    if not fitting and group[0].cause in _WISH:
        yield f"change or remove the annotation {_WISH[group[0].cause]}"


def _room(group: Sequence[Verdict], judge: Judge, holders: tuple[str, ...]) -> Iterator[str]:
    leaving = [pod.key for verdict in group for pod in verdict.state.pods.values() if pod.leaving]
    if leaving:
        yield f"ending already: {_list(sorted(leaving))}"
    if holders:
        yield f"when one of these pods ends: {_list(holders)}"
    elif not leaving:
        yield "when several pods of one node have ended"
    yield from _fewer(group, judge)


def _fewer(group: Sequence[Verdict], judge: Judge) -> Iterator[str]:
    """Yield with how many devices the pod would fit somewhere now, where it asks for one kind."""
    if len(judge.ask.totals) != 1 or not judge.ask.simple:
        return
    ((resource, wanted),) = judge.ask.totals
    if resource == GPU_MEMORY_RESOURCE:
        return
    best = max(group, key=lambda verdict: verdict.state.free.get(resource, 0))
    most = best.state.free.get(resource, 0)
    if 0 < most < wanted:
        yield f"asking for {most} instead of {wanted} it would fit on {best.node} now"


def _holders(group: Sequence[Verdict], judge: Judge) -> Iterator[str]:
    """Yield the pods of which each would make room by ending, as far as they are looked for."""
    tried = 0
    for verdict in sorted(group, key=lambda each: each.node):
        for pod in sorted(verdict.state.pods.values(), key=lambda each: each.key):
            if tried >= _TRIED:
                return
            tried += 1
            if not pod.leaving and helps(judge.ask, verdict.state, {pod.uid}):
                yield f"{pod.key} on {verdict.node}"


def _use(group: Sequence[Verdict]) -> str:
    pods = sum(len(verdict.state.pods) for verdict in group)
    unknown = sum(bool(_foreign(verdict.state)) for verdict in group)
    saw = f"the GPUs of {_nodes(len(group))} are held by {_count(pods, 'pod')}"
    if unknown:
        saw += f"; on {_nodes(unknown)} kubelet gave GPUs to pods that gpudetour was not told of"
    return saw


def _foreign(state: NodeState) -> list[str]:
    in_use = state.facts.in_use if state.facts is not None else {}
    return [uid for uid in in_use.values() if uid not in state.pods and uid not in state.ended]


def _unclear(group: Sequence[Verdict]) -> list[str]:
    return [
        f"{pod.key} on {verdict.node}: {pod.unclear or pod.fault}"
        for verdict in group
        for pod in verdict.state.unclear()
    ]


def _inventories(group: Sequence[Verdict], facts: Facts) -> Iterator[tuple[str, NodeInventory]]:
    """Yield what the agents of some nodes of a group told; unreadable ones are left out."""
    names = {verdict.node for verdict in group}
    chosen = [node for node in facts.nodes or () if node.metadata.name in names][:_READ]
    for node in chosen:
        text = (node.metadata.annotations or {}).get(contract.INVENTORY)
        if text is None:
            continue
        try:
            yield node.metadata.name, contract.decode_inventory(text)
        except contract.AnnotationError:
            continue


def _products(group: Sequence[Verdict], facts: Facts) -> list[str]:
    found: Counter[str] = Counter()
    for _, inventory in _inventories(group, facts):
        found.update({gpu.product or "unknown GPU" for gpu in inventory.gpus})
    return [name for name, _ in found.most_common()] or ["GPUs of a product that is not known"]


def _largest(group: Sequence[Verdict], facts: Facts) -> str:
    sizes = [
        gpu.memory_bytes
        for _, inventory in _inventories(group, facts)
        for gpu in inventory.gpus
        if gpu.memory_bytes is not None
    ]
    if not sizes:
        return "an amount of memory that is not known"
    return f"{max(sizes) >> 20} MiB"


def _sick(group: Sequence[Verdict], facts: Facts) -> list[str]:
    return [
        f"GPU {gpu.index} of {name} is {gpu.health}"
        + (f": {gpu.health_reason}" if gpu.health_reason else "")
        for name, inventory in _inventories(group, facts)
        for gpu in inventory.gpus
        if gpu.health is not Health.HEALTHY
    ]


def _list(names: Iterable[str], *, most: int = 5) -> str:
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def _nodes(count: int) -> str:
    return _count(count, "node")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
