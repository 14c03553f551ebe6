"""The tables that people read, and the same for programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from localcluster.bench.figures import BIND_WRITES, LOOP, REFUSED, SCHEDULED, Row
from localcluster.bench.goals import Goal
from localcluster.bench.outcome import Asked, Growth, Rebuild, Results, State
from localcluster.bench.systems import System

#: Headings and the figures below them.
_COLUMNS: Mapping[str, str] = {
    "loop, ms": LOOP,
    "filter p50": "filter p50",
    "p99, ms": "filter p99",
    "bind p99": "bind p99",
    "refused, %": REFUSED,
    "writes": BIND_WRITES,
}
#: Headings of round trips, in milliseconds.
_ASKED = ("names", "some fit: p50", "p99, ms", "none fits: p50", "p99, ms", "stub: p50", "p99, ms")
#: Processes whose CPU and memory are told.
_PROCESSES = ("extender", "stub", "webhook", "kube-scheduler", "kube-apiserver", "etcd")

_Figures = Mapping[str, Row]


def speed_table(rows: Iterable[Row]) -> Table:
    """One line for each system, at each size and state."""
    table = _table("Speed", ("nodes", "state", "system"))
    for heading in ("pods/s", "range", "to alone", "to stub", *_COLUMNS):
        table.add_column(heading, justify="right")
    before: tuple[int, State] | None = None
    for (nodes, state, system), figures in _by_system(rows).items():
        if before not in (None, (nodes, state)):
            table.add_section()
        before = (nodes, state)
        scheduled = figures[SCHEDULED]
        table.add_row(
            str(nodes),
            state.value,
            system.value,
            _number(scheduled.value),
            f"{_number(scheduled.lowest)}-{_number(scheduled.highest)}",
            _ratio(scheduled.to_alone),
            _ratio(scheduled.to_stub),
            *(_value(figures.get(name)) for name in _COLUMNS.values()),
        )
    return table


def usage_table(rows: Iterable[Row], *, agent_memory: int | None) -> Table:
    """CPU and memory of each process on full nodes, for the largest clusters."""
    found = [row for row in rows if row.state is State.FULL]
    largest = max((row.nodes for row in found), default=0)
    table = _table(f"CPU, ms per pod, and memory, MiB, at {largest} full nodes", ("process",))
    systems = _by_system(row for row in found if row.nodes == largest)
    for _, _, system in systems:
        table.add_column(system.value, justify="right")
    for process in _PROCESSES:
        cells = [
            f"{_value(figures[f'CPU, {process}'])} {_value(figures[f'memory, {process}']):>5}"
            if f"memory, {process}" in figures and f"CPU, {process}" in figures
            else ""
            for figures in systems.values()
        ]
        if any(cells):
            table.add_row(process, *cells)
    if agent_memory is not None:
        table.caption = f"A node agent takes {agent_memory / (1 << 20):.0f} MiB."
    return table


def rebuild_table(rebuilds: Iterable[Rebuild]) -> Table:
    """How long extenders took to serve again."""
    table = _table("Extender started again among bound pods", ("nodes", "pods", "system"))
    for heading in ("ledger, s", "start to serving, s"):
        table.add_column(heading, justify="right")
    for each in rebuilds:
        cells = (f"{each.ledger:.2f}", f"{each.restart:.2f}")
        table.add_row(str(each.nodes), str(each.pods), each.system.value, *cells)
    return table


def growth_table(growth: Growth) -> Table:
    """Round trips of filters by the length of the list of names."""
    title = f"Filter over HTTPS, {growth.system.value}, {growth.nodes} nodes, {growth.pods} pods"
    table = _table(title, ())
    for heading in _ASKED:
        table.add_column(heading, justify="right")
    for names, ours in sorted(growth.ours.items()):
        nowhere, stub = growth.nowhere.get(names), growth.stub.get(names)
        table.add_row(str(names), *_times(ours), *_times(nowhere), *_times(stub))
    return table


def _times(found: Asked | None) -> tuple[str, str]:
    return ("", "") if found is None else (_number(found.p50 * 1e3), _number(found.p99 * 1e3))


def goals_table(goals: Sequence[Goal]) -> Table:
    """Each goal with what was measured."""
    met = sum(goal.met for goal in goals)
    table = _table(f"Goals: {met} of {len(goals)} met", ("goal", "where"))
    for heading in ("measured", "limit"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        table.add_row(
            goal.text,
            goal.where,
            f"{_number(goal.value)} {goal.unit}",
            f"{sign} {goal.limit:g}",
            "met" if goal.met else "[bold]not met[/bold]",
        )
    return table


def document(rows: Iterable[Row], goals: Iterable[Goal], results: Results) -> dict[str, Any]:
    """All that was measured, for programs; full precision."""
    return {
        "rows": [
            asdict(row) | {"system": row.system.value, "state": row.state.value} for row in rows
        ],
        "goals": [asdict(goal) | {"met": goal.met} for goal in goals],
        "rebuilds": [asdict(each) | {"system": each.system.value} for each in results.rebuilds],
        "growth": [asdict(each) | {"system": each.system.value} for each in results.growths],
        "agent_memory": results.agent_memory,
    }


def _by_system(rows: Iterable[Row]) -> dict[tuple[int, State, System], dict[str, Row]]:
    found: defaultdict[tuple[int, State, System], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found[row.nodes, row.state, row.system][row.what] = row
    return dict(found)


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _value(row: Row | None) -> str:
    return "" if row is None else _number(row.value)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
