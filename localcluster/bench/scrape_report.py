"""What scrapes cost, for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from localcluster.bench.goals import Goal
from localcluster.bench.scrape import Scraped
from localcluster.bench.table import goals_table
from localcluster.files import write_atomically

#: Milliseconds.
_LIMIT = 200.0
_WIDTH = 120


def goals_of(scraped: Sequence[Scraped]) -> Iterator[Goal]:
    """Yield the goal of all metrics at 1,000 nodes; the slowest scrape counts."""
    ours = [each for each in scraped if not each.what.startswith("client library")]
    yield Goal(
        text="scraping all metrics",
        where=f"{' + '.join(each.what for each in ours)}, worst of {len(ours[0].times)}",
        value=sum(each.worst for each in ours),
        unit="ms",
        limit=_LIMIT,
    )


def tell_scrapes(scraped: Sequence[Scraped], *, output: Path) -> None:
    """Print a table and the goal, and write all of it beside `output`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    table = Table(title="Scrapes", title_justify="left", box=None)
    for heading in ("", "series", "KiB", "median, ms", "worst, ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for each in scraped:
        size, times = f"{each.size / 1024:.1f}", (f"{each.median:.2f}", f"{each.worst:.2f}")
        table.add_row(each.what, str(each.series), size, *times)
    console.print(table)
    goals = list(goals_of(scraped))
    console.print(goals_table(goals))
    target = output.with_name(f"{output.stem}-scrape.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "scrapes": [asdict(each) for each in scraped],
        "goals": [asdict(goal) | {"met": goal.met} for goal in goals],
    }
    write_atomically(target, json.dumps(document, indent=2).encode())
    console.print(f"All of it: {target}")
