"""How long the commands took, beside kubectl's, and which goals that meets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from localcluster.bench.goals import Goal
from localcluster.bench.table import goals_table
from localcluster.files import write_atomically

START = "version --client"
SMALL, LARGE = "small", "large"
_WIDTH = 160

#: Seconds on the large cluster.
_GOALS: Mapping[str, float] = {"nodes": 2.0, "explain pod": 1.0}
#: Seconds to the first output, which nobody minds.
_FIRST = 0.5
#: What reads the same objects.
_BESIDE: Mapping[str, str] = {
    "nodes": "kubectl get pods -A -l",
    "gpus": "kubectl get pods -A -l",
    "pods -A": "kubectl get pods -A -l",
    "explain pod": "kubectl get pods -A -l",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CliSeen:
    """Seconds of each round, by the size of the cluster and the command."""

    nodes: int
    pods: int
    seconds: Mapping[tuple[str, str], Sequence[float]]


def goals_of(seen: CliSeen) -> Iterator[Goal]:
    """Yield all goals; medians count."""
    size = f"{seen.nodes} nodes, {seen.pods} GPU pods"
    for what, limit in _GOALS.items():
        yield _goal(f"`gpudetour {what}`", size, seen.seconds[LARGE, what], limit)
    for what in (START, *_GOALS):
        yield _goal(f"`gpudetour {what}`", "8 nodes", seen.seconds[SMALL, what], _FIRST)


def _goal(text: str, where: str, seconds: Sequence[float], limit: float) -> Goal:
    return Goal(text=text, where=where, value=median(seconds), unit="s", limit=limit)


def ratio(seen: CliSeen, size: str, what: str) -> float | None:
    """Return the median over the rounds of the time as a multiple of kubectl's in that round."""
    beside = _BESIDE.get(what)
    if beside is None:
        return None
    pairs = zip(seen.seconds[size, what], seen.seconds[size, beside], strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def tell_cli(seen: CliSeen, *, output: Path) -> None:
    """Print a table and the goals, and write all of it beside `output`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(_table(seen))
    goals = list(goals_of(seen))
    console.print(goals_table(goals))
    target = output.with_name(f"{output.stem}-cli.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "nodes": seen.nodes,
        "pods": seen.pods,
        "seconds": {f"{size}: {what}": list(found) for (size, what), found in seen.seconds.items()},
        "goals": [asdict(goal) | {"met": goal.met} for goal in goals],
    }
    write_atomically(target, json.dumps(document, indent=2).encode())
    console.print(f"Whole processes, output in a pipe. All of it: {target}")


def _table(seen: CliSeen) -> Table:
    table = Table(title="The command line, seconds", title_justify="left")
    for header in ("cluster", "command", "median", "lowest", "highest", "to kubectl"):
        table.add_column(header, justify="left" if header in ("cluster", "command") else "right")
    for (size, what), found in seen.seconds.items():
        times = ratio(seen, size, what)
        figures = (f"{value:.2f}" for value in (median(found), min(found), max(found)))
        table.add_row(size, what, *figures, "" if times is None else f"{times:.2f} x")
    return table
