"""Pods that wait, and why: what was last answered for them, or what keeps them from being asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from extender.page.answers import Told
from extender.page.notes import shortened
from extender.placement.facts import PodFacts
from extender.placement.ledger import Ledger
from gpus.demand import Demand
from gpus.model import GPU_MEMORY_RESOURCE, PodUid
from gpus.quantity import written
from gpus.wishes import Wishes

#: Pods that are shown one by one; of the others there is the sum.
SHOWN = 200
NOT_ASKED = "kube-scheduler has not asked for it"
OFFERED = "a node was offered"
NOT_GRANTABLE = "cannot be granted as written"


class Waiter(Struct, frozen=True, omit_defaults=True):
    """A pod that waits. `created` is RFC 3339; `reasons` are by number of nodes, most first."""

    pod: str
    asks: str = ""
    created: str = ""
    priority: int = 0
    #: In one line.
    said: str = ""
    node: str = ""
    reasons: Sequence[tuple[str, int]] = ()


class Queue(Struct, frozen=True, omit_defaults=True):
    """All that wait: the first by priority and age, and how many for which main reason."""

    count: int = 0
    shown: Sequence[Waiter] = ()
    sums: Sequence[tuple[str, int]] = ()


def queue_of(ledger: Ledger, told: Callable[[PodUid], Told | None]) -> Queue:
    """Return the pods that wait for GPUs."""
    waiting = [pod for pod in ledger.pods.values() if pod.waits and not pod.leaving]
    waiting.sort(key=lambda pod: (-pod.priority, pod.created, pod.key))
    sums = Counter(_main(pod, told(pod.uid)) for pod in waiting)
    return Queue(
        count=len(waiting),
        shown=[_waiter(pod, told(pod.uid)) for pod in waiting[:SHOWN]],
        sums=sums.most_common(),
    )


def _main(pod: PodFacts, told: Told | None) -> str:
    if pod.fault:
        return NOT_GRANTABLE
    if told is None:
        return NOT_ASKED
    if told.node is not None:
        return OFFERED
    return max(told.reasons, key=lambda text: (told.reasons[text], text), default=NOT_ASKED)


def _waiter(pod: PodFacts, told: Told | None) -> Waiter:
    reasons = told.reasons if told is not None else {}
    return Waiter(
        pod=pod.key,
        asks=shortened(", ".join(_asks(pod.demand))) if pod.demand is not None else "",
        created=pod.created,
        priority=pod.priority,
        said=shortened(pod.fault) or _main(pod, told),
        node=(told.node or "") if told is not None else "",
        reasons=sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
    )


def _asks(demand: Demand) -> Iterator[str]:
    for name, count in demand.totals.items():
        share = name == GPU_MEMORY_RESOURCE
        yield f"{written(count)} of one GPU" if share else f"{count} x {name}"
    yield from _wishes(demand.wishes)


def _wishes(wishes: Wishes) -> Iterator[str]:
    if wishes.products:
        yield f"product {' or '.join(wishes.products)}"
    if wishes.min_memory:
        yield f"at least {written(wishes.min_memory)} each"
    if wishes.min_compute is not None:
        yield "compute capability {}.{} or more".format(*wishes.min_compute)
    if wishes.topology is not None:
        yield f"joined by {wishes.topology.value}"
    if wishes.uuids:
        yield f"one of {len(wishes.uuids)} named GPUs"
    if wishes.excluded:
        yield f"none of {len(wishes.excluded)} named GPUs"
