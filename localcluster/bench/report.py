"""Telling what was measured: tables on the terminal, a document and a plot in files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from localcluster.bench.chart import write_chart
from localcluster.bench.figures import rows
from localcluster.bench.goals import goals
from localcluster.bench.outcome import Results
from localcluster.bench.table import (
    document,
    goals_table,
    growth_table,
    rebuild_table,
    speed_table,
    usage_table,
)
from localcluster.files import write_atomically

_WIDTH = 160
_NOTES = """\
Pods/s: from the first Binding to the last, with all pods waiting; the median of rounds in which the
systems take turns. To alone, to stub: the median of the ratios within each round.
CPU: from the start of the scheduler. Memory: a worker and its parent count shared pages once.
The stub names one node of the list in turn and posts a plain Binding; it never knows what is free.
The clusters share this machine with what measures them: compare within one run only."""


def write(results: Results, told: Mapping[str, object], *, output: Path) -> None:
    """Write everything to `output`, and a plot beside it where filters were asked one by one.

    `told` is what is known of the run.
    """
    figures = rows(results.outcomes)
    whole = {**told, **document(figures, goals(figures, results), results)}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, json.dumps(whole, indent=2).encode())
    for growth in results.growths:
        write_chart(growth, plot_beside(output))


def show(results: Results, *, output: Path) -> None:
    """Print everything that people want to see, goals last."""
    figures = rows(results.outcomes)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(speed_table(figures))
    console.print(usage_table(figures, agent_memory=results.agent_memory))
    if results.rebuilds:
        console.print(rebuild_table(results.rebuilds))
    for growth in results.growths:
        console.print(growth_table(growth))
        console.print(f"As a plot: {plot_beside(output)}\n")
    console.print(goals_table(goals(figures, results)))
    console.print(f"{_NOTES}\nAll of it: {output}")


def plot_beside(output: Path) -> Path:
    """Where the plot goes: `bench-growth.svg` beside `bench.json`."""
    return output.with_name(f"{output.stem}-growth.svg")
