"""What was seen of admission, what it comes to, and which goals it meets. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from localcluster.bench.goals import Goal

#: The webhook beside a bare Flask view in the same server.
_TO_BARE = 0.7
#: Milliseconds that the webhook may add to 99 of 100 creates of GPU pods.
_ADDED = 20.0
_MEMORY = 150.0
#: MiB by which memory may differ after so many requests and still count as flat.
_FLAT = 5.0
_MEBI = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Closed loops on some connections; latencies in seconds.

    `cpu` is what the server used for a request, in seconds; the same on a busy machine. 0 where it
    was not looked at.
    """

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The webhook and the bare view, one right after the other."""

    connections: int
    webhook: Speed
    bare: Speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """Pods created through the API server; `at_once` on several connections, others on one."""

    admitted: bool
    gpu: Speed
    plain: Speed
    at_once: float
    #: Reviews that the webhook was asked for while pods without GPUs were created.
    reviews_of_plain: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident bytes of all processes of one webhook, by how many requests it has answered."""

    after: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """All that one run saw; several of each kind are rounds."""

    served: Sequence[Served] = ()
    created: Sequence[Created] = ()
    memory: Memory = field(default_factory=lambda: Memory(after={}))


def goals_of(admission: Admission) -> list[Goal]:
    """All goals that were measured."""
    return [
        *_of_serving(admission.served),
        *_of_creating(admission.created),
        *_of_memory(admission.memory),
    ]


def _of_serving(served: Sequence[Served]) -> Iterator[Goal]:
    for connections, rounds in _by_connections(served).items():
        yield Goal(
            text="webhook's requests/s beside a bare Flask view",
            where=f"{connections} connections",
            value=median(each.webhook.rate / each.bare.rate for each in rounds),
            unit="times",
            limit=_TO_BARE,
            at_least=True,
        )


def _of_creating(created: Sequence[Created]) -> Iterator[Goal]:
    added = added_p99(created)
    if added is None:
        return
    yield Goal(
        text="p99 added to the create of a GPU pod",
        where="through the API server",
        value=added * 1e3,
        unit="ms",
        limit=_ADDED,
    )
    yield Goal(
        text="reviews of pods without GPUs",
        where="through the API server",
        value=sum(each.reviews_of_plain for each in created),
        unit="calls",
        limit=0.0,
    )


def _of_memory(memory: Memory) -> Iterator[Goal]:
    if not memory.after:
        return
    most = max(memory.after)
    yield Goal(
        text="resident memory of the webhook",
        where=f"after {most:,} requests",
        value=memory.after[most] / _MEBI,
        unit="MiB",
        limit=_MEMORY,
    )
    yield Goal(
        text="growth of the webhook's memory",
        where=f"from {min(memory.after):,} to {most:,} requests",
        value=(memory.after[most] - memory.after[min(memory.after)]) / _MEBI,
        unit="MiB",
        limit=_FLAT,
    )


def added_p99(created: Sequence[Created]) -> float | None:
    """Seconds; None where one of both was not measured."""
    with_webhook = [each.gpu.p99 for each in created if each.admitted]
    without = [each.gpu.p99 for each in created if not each.admitted]
    return median(with_webhook) - median(without) if with_webhook and without else None


def serving_table(served: Sequence[Served]) -> Table:
    """One line for each number of connections; medians of the rounds."""
    table = Table(title="Admission over HTTPS", title_justify="left", title_style="bold")
    times = ("p50, ms", "p99, ms", "CPU, ms")
    for heading in ("connections", "webhook/s", *times, "bare/s", *times, "to bare"):
        table.add_column(heading, justify="right", no_wrap=True)
    for connections, rounds in _by_connections(served).items():
        ratio = median(each.webhook.rate / each.bare.rate for each in rounds)
        webhook, bare = ([getattr(each, who) for each in rounds] for who in ("webhook", "bare"))
        cells = (*_cells(webhook), _cpu(webhook), *_cells(bare), _cpu(bare))
        table.add_row(str(connections), *cells, f"{ratio:.2f}")
    return table


def creating_table(created: Sequence[Created]) -> Table:
    """Creates of pods with and without the webhook; medians of the rounds."""
    table = Table(title="Pods created", title_justify="left", title_style="bold")
    headings = ("webhook", "GPU pods/s", "p50, ms", "p99, ms", "others/s", "p50, ms", "p99, ms")
    for heading in (*headings, "GPU pods/s, 6 at once"):
        table.add_column(heading, justify="right", no_wrap=True)
    for admitted in (False, True):
        rounds = [each for each in created if each.admitted is admitted]
        if rounds:
            cells = (*_cells([e.gpu for e in rounds]), *_cells([e.plain for e in rounds]))
            at_once = f"{median(each.at_once for each in rounds):.0f}"
            table.add_row("yes" if admitted else "no", *cells, at_once)
    return table


def document_of(admission: Admission) -> dict[str, Any]:
    """Memory and goals, for programs; the rest says itself."""
    return {
        "memory": {str(requests): used for requests, used in admission.memory.after.items()},
        "goals": [
            {"goal": goal.text, "where": goal.where, "value": goal.value, "met": goal.met}
            for goal in goals_of(admission)
        ],
    }


def _by_connections(served: Sequence[Served]) -> dict[int, list[Served]]:
    found: dict[int, list[Served]] = {}
    for each in served:
        found.setdefault(each.connections, []).append(each)
    return dict(sorted(found.items()))


def _cpu(speeds: Sequence[Speed]) -> str:
    return f"{median(each.cpu for each in speeds) * 1e3:.2f}"


def _cells(speeds: Sequence[Speed]) -> tuple[str, str, str]:
    rate, p50, p99 = (median(getattr(s, name) for s in speeds) for name in ("rate", "p50", "p99"))
    return f"{rate:.0f}", f"{p50 * 1e3:.2f}", f"{p99 * 1e3:.2f}"
