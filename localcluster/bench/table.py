"""What the outcomes come to: figures with their baseline, as a table and as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from rich.table import Table

from localcluster.bench.experiment import Outcome
from localcluster.bench.systems import System

_MEBI = 1 << 20
_SMALL = 0.005
"""Writes per pod and milliseconds of CPU per pod below this are not worth a line."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value."""

    value: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line; `baseline` is the same figure of kube-scheduler alone, at the same size."""

    name: str
    nodes: int
    value: float
    unit: str
    baseline: float | None
    ratio: float | None


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """The median of each figure over repeated experiments, with its baseline."""
    seen: defaultdict[tuple[int, System], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        seen[outcome.load.nodes, outcome.system].append(outcome)
    medians = {key: _median(repeated) for key, repeated in seen.items()}
    names = dict.fromkeys(name for figures in medians.values() for name in figures)
    return [
        _row(name, figure, nodes=nodes, system=system, alone=medians.get((nodes, System.NATIVE)))
        for nodes in sorted({nodes for nodes, _ in medians})
        for name in sorted(names, key=_place)
        for system in System
        if (figure := medians.get((nodes, system), {}).get(name)) is not None
    ]


def rendered(found: Sequence[Row], *, title: str) -> Table:
    """The rows for people; a section for each number of nodes."""
    table = Table(title=title, title_justify="left")
    table.add_column("nodes", justify="right")
    table.add_column("what")
    for heading in ("value", "alone", "ratio"):
        table.add_column(heading, justify="right")
    for before, row in zip([None, *found], found, strict=False):
        if before is not None and before.nodes != row.nodes:
            table.add_section()
        table.add_row(
            str(row.nodes),
            row.name,
            f"{_number(row.value)} {row.unit}",
            "" if row.baseline is None else _number(row.baseline),
            "" if row.ratio is None else f"{row.ratio:.2f}",
        )
    return table


def as_json(found: Iterable[Row]) -> list[dict[str, object]]:
    """The rows for programs; full precision."""
    return [asdict(row) for row in found]


def _figures(outcome: Outcome) -> dict[str, Figure]:
    found = {
        "scheduled": Figure(outcome.pods_per_second, "pods/s"),
        "scheduling loop, mean": Figure(outcome.loop * 1000, "ms per pod"),
    }
    if outcome.system is System.THROTTLED:
        return {"scheduled": found["scheduled"]}
    for (what, share), seconds in outcome.latencies.items():
        found[f"{what} p{share * 100:.0f}"] = Figure(seconds * 1000, "ms")
    if outcome.refused_share is not None:
        found["binds refused"] = Figure(outcome.refused_share * 100, "%")
    total = sum(outcome.writes_per_pod.values())
    found["API writes, all"] = Figure(total, "per pod")
    for resource, count in sorted(outcome.writes_per_pod.items()):
        found[f"API writes, {resource}"] = Figure(count, "per pod")
    for process, seconds in outcome.cpu_per_pod.items():
        found[f"CPU, {process}"] = Figure(seconds * 1000, "ms per pod")
    for process, size in outcome.memory.items():
        found[f"memory, {process}"] = Figure(size / _MEBI, "MiB")
    return {
        name: figure
        for name, figure in found.items()
        if figure.value >= _SMALL or not name.startswith(("API writes", "CPU"))
    }


def _median(repeated: Sequence[Outcome]) -> dict[str, Figure]:
    all_figures = [_figures(outcome) for outcome in repeated]
    return {
        name: Figure(median(f[name].value for f in all_figures if name in f), figure.unit)
        for figures in all_figures
        for name, figure in figures.items()
    }


def _row(
    name: str, figure: Figure, *, nodes: int, system: System, alone: Mapping[str, Figure] | None
) -> Row:
    compared = alone.get(name) if alone is not None and system is not System.NATIVE else None
    return Row(
        name=f"{name}: {system.value}",
        nodes=nodes,
        value=figure.value,
        unit=figure.unit,
        baseline=compared.value if compared is not None else None,
        ratio=figure.value / compared.value if compared is not None and compared.value else None,
    )


def _place(name: str) -> int:
    """Where a figure stands in the table: by its kind, else as found."""
    kinds = (
        "scheduled",
        "scheduling",
        "filter",
        "prioritize",
        "bind p",
        "webhook",
        "binds",
        "API",
        "CPU",
    )
    return next((place for place, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
