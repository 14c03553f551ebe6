"""The shipped dashboard as rows of panels with their queries. Pure but for reading the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.shipped import MANIFESTS

FILE = MANIFESTS / "monitoring" / "dashboard.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of a panel; `legend` names its series with `{{label}}` for values of labels."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel; `x` and `width` are in 24ths of the page, `height` in Grafana's units.

    `falling` is the label by which a table is sorted, from the end of the alphabet on.
    """

    title: str
    kind: str
    unit: str
    x: int
    y: int
    width: int
    height: int
    queries: tuple[Query, ...]
    falling: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def rows(path: Path = FILE, *, rate_interval: str) -> tuple[Row, ...]:
    """All rows, with Grafana's variables as they are when everything is chosen."""
    found: list[tuple[str, list[Panel]]] = []
    for item in json.loads(path.read_text())["panels"]:
        if item["type"] == "row":
            found.append((item["title"], []))
        else:
            found[-1][1].append(_panel(item, rate_interval))
    return tuple(Row(title=title, panels=tuple(panels)) for title, panels in found)


def _panel(item: dict[str, Any], rate_interval: str) -> Panel:
    place = item["gridPos"]
    return Panel(
        title=item["title"],
        kind=item["type"],
        unit=item["fieldConfig"]["defaults"]["unit"],
        x=place["x"],
        y=place["y"],
        width=place["w"],
        height=place["h"],
        falling=next((each["displayName"] for each in item["options"].get("sortBy", ())), ""),
        queries=tuple(
            Query(
                expression=target["expr"]
                .replace("$__rate_interval", rate_interval)
                .replace("$node", ".*"),
                legend=target["legendFormat"],
            )
            for target in item["targets"]
        ),
    )
