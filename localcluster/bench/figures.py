"""What batches come to: the median of each figure over the rounds, beside the two systems that
gpudetour is compared with. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from localcluster.bench.outcome import Outcome, State
from localcluster.bench.systems import System

SCHEDULED = "scheduled"
LOOP = "scheduling loop"
REFUSED = "binds refused"
BIND_WRITES = "writes for a bind"
EXTENDER_MEMORY = "memory, extender"

#: Not written by whoever binds.
_NOT_OF_BINDS = frozenset({"events", "leases"})
_MEBI = 1 << 20

_Key = tuple[int, State, System]
_ByRound = Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one system; ratios are the medians of those within each round."""

    what: str
    system: System
    nodes: int
    state: State
    value: float
    lowest: float
    highest: float
    unit: str
    to_alone: float | None
    to_stub: float | None


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """All figures, in the order of sizes, states and systems."""
    seen: dict[_Key, dict[tuple[str, str], dict[int, float]]] = {}
    for outcome in outcomes:
        key = (outcome.load.nodes, outcome.load.state, outcome.system)
        for figure, value in figures(outcome).items():
            seen.setdefault(key, {}).setdefault(figure, {})[outcome.round] = value
    return [
        _row(
            figure,
            by_round,
            key=key,
            # What one system shows, as a kind of write, another may not.
            alone=seen.get((key[0], key[1], System.NATIVE), {}).get(figure, {}),
            stub=seen.get((key[0], key[1], System.STUB), {}).get(figure, {}),
        )
        for key in sorted(seen, key=_place)
        for figure, by_round in seen[key].items()
    ]


def figures(outcome: Outcome) -> dict[tuple[str, str], float]:
    """The figures of one batch by name and unit."""
    found = {
        (SCHEDULED, "pods/s"): outcome.pods_per_second,
        (LOOP, "ms per pod"): outcome.loop * 1000,
    }
    for (what, share), seconds in outcome.latencies.items():
        found[f"{what} p{share * 100:.0f}", "ms"] = seconds * 1000
    if outcome.refused_share is not None:
        found[REFUSED, "%"] = outcome.refused_share * 100
    writes = outcome.writes_per_pod
    if writes:
        own = (count for resource, count in writes.items() if resource not in _NOT_OF_BINDS)
        found[BIND_WRITES, "per pod"] = sum(own)
    for resource, count in sorted(writes.items()):
        found[f"API writes, {resource}", "per pod"] = count
    for process, seconds in outcome.cpu_per_pod.items():
        found[f"CPU, {process}", "ms per pod"] = seconds * 1000
    for process, size in outcome.memory.items():
        found[f"memory, {process}", "MiB"] = size / _MEBI
    return found


def _row(
    figure: tuple[str, str], by_round: _ByRound, *, key: _Key, alone: _ByRound, stub: _ByRound
) -> Row:
    nodes, state, system = key
    what, unit = figure
    values = by_round.values()
    return Row(
        what=what,
        system=system,
        nodes=nodes,
        state=state,
        value=median(values),
        lowest=min(values),
        highest=max(values),
        unit=unit,
        to_alone=_ratio(by_round, alone) if system is not System.NATIVE else None,
        to_stub=_ratio(by_round, stub) if system.path is not None else None,
    )


def _ratio(mine: _ByRound, other: _ByRound) -> float | None:
    found = [value / other[number] for number, value in mine.items() if other.get(number)]
    return median(found) if found else None


def _place(key: _Key) -> tuple[int, int, int]:
    nodes, state, system = key
    return nodes, list(State).index(state), list(System).index(system)
