"""Whom to evict so that a more important pod gets its GPUs: the least that is enough, or nobody.

Only devices are weighed here. That a node suits the pod in every other way is kube-scheduler's to
say: callers offer the nodes that it named, and no others.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from math import comb

from extender.placement.facts import PodFacts
from extender.placement.fit import Ask, Fit, fits
from extender.placement.state import NodeState
from gpus.model import GPU_MEMORY_RESOURCE, NodeName, PodUid, ResourceName

#: How many nodes are compared at most; kube-scheduler compares 100 or a tenth of them
#: (DefaultPreemptionArgs).
_NODES = 100
#: How many sets of holders of one node are tried before the smallest of all is not insisted on.
_SETS = 2_000

#: The less, the sooner: highest priority, count, all priorities, devices lost, age, and at last the
#: names, so that equals are told apart in one way only.
Cost = tuple[int, int, tuple[int, ...], int, tuple[int, ...], tuple[PodUid, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A node that can take the pod when the `victims` are gone, and those that leave already.

    No victims: nobody has to go who does not leave already.
    """

    node: NodeName
    victims: tuple[PodFacts, ...]


def make_room(
    ask: Ask,
    *,
    priority: int,
    names: Iterable[NodeName],
    nodes: Mapping[NodeName, NodeState],
    spared: Collection[PodUid] = (),
) -> Room | None:
    """Return where a pod of that priority could be placed, and at whose cost; None: nowhere.

    Wanted are, in this order: no victim at all; a lowest highest priority among the victims; few
    victims; low priorities of the others; few devices lost; victims that started late. `nodes` must
    be as the pod should see them (`Ledger.seen_by`). Pods in `spared` are left alone.
    """
    queue: list[tuple[int, NodeName, NodeState, list[PodFacts]]] = []
    for name in names:
        before = nodes.get(name)
        if before is None or before.blocked is not None:
            continue
        state = when_left(before)
        if _may_be_enough(ask, state, ()) and isinstance(fits(ask, state), Fit):
            return Room(node=name, victims=())
        weaker = [
            pod
            for pod in state.pods.values()
            if pod.priority < priority and pod.demand is not None and pod.uid not in spared
        ]
        if weaker and _may_be_enough(ask, state, weaker):
            queue.append((min(pod.priority for pod in weaker), name, state, weaker))
    return _cheapest(ask, queue)


def helps(ask: Ask, state: NodeState, leaving: Collection[PodUid]) -> bool:
    """Tell whether a node has what is asked when these pods are gone, and those that leave."""
    return isinstance(fits(ask, when_left(state, also=leaving)), Fit)


def when_left(state: NodeState, *, also: Collection[PodUid] = ()) -> NodeState:
    """Return a node as it will be without the pods that are being deleted, and these."""
    gone = [uid for uid, pod in state.pods.items() if pod.leaving or uid in also]
    if not gone:
        return state
    pods = {uid: pod for uid, pod in state.pods.items() if uid not in gone}
    # Remembered as ended: what kubelet was seen to have given them is then nobody's.
    return state.having(pods=pods, ended=(*state.ended, *gone))


def _cheapest(
    ask: Ask, queue: list[tuple[int, NodeName, NodeState, list[PodFacts]]]
) -> Room | None:
    best: tuple[Cost, Room] | None = None
    found = 0
    heapq.heapify(queue)
    while queue and found < _NODES:
        least, name, state, weaker = heapq.heappop(queue)
        if best is not None and least > best[0][0]:
            break
        victims = _fewest(ask, state, weaker)
        if victims is None:
            continue
        found += 1
        cost = _cost(victims)
        if best is None or cost < best[0]:
            best = cost, Room(node=name, victims=victims)
    return best[1] if best is not None else None


def _fewest(ask: Ask, state: NodeState, weaker: Sequence[PodFacts]) -> tuple[PodFacts, ...] | None:
    """Return the cheapest victims among these; None when all of them together are not enough."""
    if not _enough(ask, state, weaker):
        return None
    weaker = sorted(weaker, key=_importance)
    for limit in sorted({pod.priority for pod in weaker}):
        pool = [pod for pod in weaker if pod.priority <= limit]
        if _may_be_enough(ask, state, pool) and _enough(ask, state, pool):
            return next(_sets(ask, state, pool))
    return None


def _sets(ask: Ask, state: NodeState, pool: Sequence[PodFacts]) -> Iterator[tuple[PodFacts, ...]]:
    """Yield sets that are enough, the cheapest first; past the limit, one that none can leave.

    The most important of the pool come last.
    """
    tried = 0
    for size in range(_at_least(ask, state, pool), len(pool) + 1):
        tried += comb(len(pool), size)
        if tried > _SETS:
            break
        for victims in sorted(combinations(pool, size), key=_cost):
            if _may_be_enough(ask, state, victims) and _enough(ask, state, victims):
                yield victims
    few = tuple(pool)
    for pod in reversed(pool):
        rest = tuple(other for other in few if other is not pod)
        if _enough(ask, state, rest):
            few = rest
    yield few


def _enough(ask: Ask, state: NodeState, victims: Iterable[PodFacts]) -> bool:
    return helps(ask, state, {pod.uid for pod in victims})


def _may_be_enough(ask: Ask, state: NodeState, victims: Collection[PodFacts]) -> bool:
    """Tell at little cost whether it is worth a closer look: counts alone, erring towards yes."""
    return all(
        state.free.get(name, 0) + _released(name, victims) >= count for name, count in _counted(ask)
    )


def _at_least(ask: Ask, state: NodeState, pool: Sequence[PodFacts]) -> int:
    """Return how many victims it takes at the least, by counts alone; one or more."""
    least = 1
    for name, count in _counted(ask):
        missing = count - state.free.get(name, 0)
        largest = sorted((_released(name, [pod]) for pod in pool), reverse=True)
        sums = accumulate(largest)
        least = max(least, sum(1 for reached in sums if reached < missing) + 1)
    return least


def _counted(ask: Ask) -> Iterator[tuple[ResourceName, int]]:
    """Return what is asked in whole devices; what a share needs cannot be told from sums."""
    return ((name, count) for name, count in ask.totals if name != GPU_MEMORY_RESOURCE)


def _released(resource: ResourceName, victims: Collection[PodFacts]) -> int:
    """Return no less than the devices of a resource that these pods hold.

    Kubelet's choice is known by count only; of one device, several pods may hold shares.
    """
    counted = sum(pod.demand.totals.get(resource, 0) for pod in victims if pod.demand is not None)
    named = {d for pod in victims if pod.assignment is not None for d in pod.assignment.devices()}
    return max(counted, len(named))


def _cost(victims: Sequence[PodFacts]) -> Cost:
    priorities = tuple(sorted((pod.priority for pod in victims), reverse=True))
    lost = sum(map(_devices, victims))
    age = tuple(sorted(-_started(pod) for pod in victims))
    uids = tuple(sorted(pod.uid for pod in victims))
    return priorities[0], len(victims), priorities, lost, age, uids


def _devices(pod: PodFacts) -> int:
    """Return how many whole devices a pod holds; shares of one count nothing."""
    totals = pod.demand.totals if pod.demand is not None else {}
    return sum(count for name, count in totals.items() if name != GPU_MEMORY_RESOURCE)


def _importance(pod: PodFacts) -> tuple[int, int, PodUid]:
    """Sort by how much a pod counts, like kube-scheduler's MoreImportantPod: then the older."""
    return pod.priority, -_started(pod), pod.uid


def _started(pod: PodFacts) -> int:
    """Return the time of creation as a number: RFC 3339 in UTC, as the API server writes it."""
    return int("".join(filter(str.isdigit, pod.created)) or 0)
