"""Which goals the figures meet. Pure; a goal that was not measured is not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from gpus.model import Path
from localcluster.bench.figures import BIND_WRITES, EXTENDER_MEMORY, REFUSED, SCHEDULED, Row
from localcluster.bench.outcome import Growth, Rebuild, Results, State

#: Milliseconds for 99 of 100 filters, by the number of nodes.
_FILTER_P99: Mapping[int, float] = {1000: 10.0, 5000: 30.0}
_TO_ALONE = 1.0
_FROM_NODES = 1000
"""Kube-scheduler alone is to be outrun where clusters are large."""
_TO_STUB = 0.9
_REFUSED = 0.5
_REBUILD_PODS = 8000
_REBUILD_SECONDS = 5.0
_LARGE = 5000
_MEMORY = 200.0
_WRITES: Mapping[Path, float] = {Path.PLUGIN: 1.0, Path.ANNOTATION: 2.0}
#: As fast as the list, and a tenth for what the machine does beside.
_GROWTH = 1.1
#: Writes that nobody of us makes, and rounding.
_SLACK = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal and what was measured; `where` tells the system, the size and the state."""

    text: str
    where: str
    value: float
    unit: str
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the measured value keeps to the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def goals(rows: Iterable[Row], results: Results) -> list[Goal]:
    """All goals that were measured."""
    found = [goal for row in rows if row.system.path is not None for goal in _of_row(row)]
    found += [_rebuilt(each) for each in results.rebuilds if each.pods >= _REBUILD_PODS]
    found += [goal for growth in results.growths for goal in _of_growth(growth)]
    order = list(dict.fromkeys(goal.text for goal in found))
    return sorted(found, key=lambda goal: order.index(goal.text))


def _of_row(row: Row) -> Iterator[Goal]:
    where = f"{row.system.value}, {row.nodes} nodes, {row.state.value}"
    if row.what == SCHEDULED:
        yield from _of_speed(row, where)
    elif row.what == "filter p99" and row.nodes in _FILTER_P99:
        limit = _FILTER_P99[row.nodes]
        text = f"filter p99 at {row.nodes:,} nodes"
        yield Goal(text=text, where=where, value=row.value, unit="ms", limit=limit)
    elif row.what == REFUSED and row.state is State.BURST:
        text = "binds refused in a burst"
        yield Goal(text=text, where=where, value=row.value, unit="%", limit=_REFUSED)
    elif row.what == BIND_WRITES and row.system.path is not None:
        limit = _WRITES[row.system.path] + _SLACK
        text = f"writes for a bind on the {row.system.value}"
        yield Goal(text=text, where=where, value=row.value, unit="per pod", limit=limit)
    elif row.what == EXTENDER_MEMORY and row.nodes == _LARGE and row.state is State.FULL:
        text = f"resident memory at {_LARGE:,} nodes and {_REBUILD_PODS:,} pods"
        yield Goal(text=text, where=where, value=row.value, unit="MiB", limit=_MEMORY)


def _of_speed(row: Row, where: str) -> Iterator[Goal]:
    if row.to_alone is not None and row.nodes >= _FROM_NODES:
        text = "pods/s beside kube-scheduler alone"
        yield _ratio(text, where, row.to_alone, _TO_ALONE)
    if row.to_stub is not None:
        text = "pods/s beside the stub with the same shortlist"
        yield _ratio(text, where, row.to_stub, _TO_STUB)


def _ratio(text: str, where: str, value: float, limit: float) -> Goal:
    return Goal(text=text, where=where, value=value, unit="times", limit=limit, at_least=True)


def _rebuilt(rebuild: Rebuild) -> Goal:
    return Goal(
        text=f"ledger rebuilt from {_REBUILD_PODS:,} GPU pods",
        where=f"{rebuild.system.value}, {rebuild.nodes} nodes",
        value=rebuild.ledger,
        unit="s",
        limit=_REBUILD_SECONDS,
    )


def _of_growth(growth: Growth) -> Iterator[Goal]:
    where = f"{growth.system.value}, {growth.nodes} nodes, {growth.pods} pods"
    yield Goal(
        text="API calls in filter and prioritize",
        where=f"{where}, {growth.requests} requests",
        value=sum(growth.api_calls.values()),
        unit="calls",
        limit=0.0,
    )
    if len(growth.ours) < 2:
        return
    yield Goal(
        text="growth of a filter by that of its list of names",
        where=where,
        value=steepest(growth),
        unit="times",
        limit=_GROWTH,
    )


def steepest(growth: Growth) -> float:
    """By how much more than the list a filter's median grew, between two lengths, at the most."""
    return max(
        (later.p50 / earlier.p50) / (longer / shorter)
        for points in (growth.ours, growth.nowhere)
        for (shorter, earlier), (longer, later) in pairwise(sorted(points.items()))
    )
