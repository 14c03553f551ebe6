"""What was seen of the page, which goals it meets, and how that is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from localcluster.bench.goals import Goal
from localcluster.bench.table import goals_table
from localcluster.files import write_atomically

#: Limits: seconds, KiB.
_PAINT = 1.0
_UPDATE = 100.0
_KIBI = 1 << 10
_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load: seconds until GPUs are drawn, and bytes that were fetched for that."""

    painted: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSeen:
    """All that one run saw; sizes in bytes as they are sent.

    `file` are the seconds in which the same browser draws a file of as many bytes as a load.
    `update` is what one changed node takes, `largest` what all of them do that can change.
    """

    nodes: int
    loads: Sequence[Load]
    file: Sequence[float]
    update: int
    largest: int


def goals_of(seen: PageSeen) -> Iterator[Goal]:
    """Yield all goals; of several loads, the worst counts."""
    where = f"{seen.nodes:,} nodes, {8 * seen.nodes:,} GPUs"
    worst = max(load.painted for load in seen.loads)
    yield Goal(
        text="first GPUs drawn after the page is asked for",
        where=f"{where}, worst of {len(seen.loads)}",
        value=worst,
        unit="s",
        limit=_PAINT,
    )
    for what, size in (("one node changed", seen.update), ("all changed at once", seen.largest)):
        yield Goal(
            text="an update of the page",
            where=f"{where}, {what}",
            value=size / _KIBI,
            unit="KiB",
            limit=_UPDATE,
        )


def tell_page(seen: PageSeen, *, output: Path) -> None:
    """Print the goals, and write all of it beside `output`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    goals = list(goals_of(seen))
    console.print(goals_table(goals))
    target = output.with_name(f"{output.stem}-page.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    document = asdict(seen) | {"goals": [asdict(goal) | {"met": goal.met} for goal in goals]}
    write_atomically(target, json.dumps(document, indent=2).encode())
    load = median(load.painted for load in seen.loads)
    console.print(
        f"The page's first load is {seen.loads[0].bytes / _KIBI:.0f} KiB; half of the loads show"
        f" GPUs within {load:.2f} s.\nA static file of that size is drawn within"
        f" {median(seen.file):.2f} s by the same browser. All of it: {target}"
    )
