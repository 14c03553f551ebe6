"""A row of the dashboard as a page: the same panels in the same places, lines drawn as SVG. Pure.

Grafana draws finer; what is shown, and from which queries, is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import isfinite

from localcluster.monitoring.dashboard import Panel, Query, Row
from localcluster.monitoring.prometheus import Series

#: Pixels of a column, of a unit of height, and between panels.
COLUMN, UNIT, _GAP = 50, 38, 4
WIDTH = 24 * COLUMN
_HEAD = 26
_COLOURS = (
    *("#2f6fde", "#e0762f", "#2a9d5c", "#b0413e", "#7a52c7", "#8a6d3b", "#0f8b8d", "#c2498f"),
    *("#5f6b7a", "#a3b018", "#4a90c2", "#d1a000"),
)
_LEGENDS = 4
#: Seconds from which on they are told as days.
_DAYS = 2 * 86400
_STYLE = """
body{margin:0;background:#f4f5f7;font:12px/1.3 "DejaVu Sans",sans-serif;color:#1d2630}
.p{position:absolute;box-sizing:border-box;background:#fff;border:1px solid #d8dce1;padding:5px 8px;
border-radius:3px;overflow:hidden}
h1{font-size:14px;margin:6px 8px}h2{font-size:12px;margin:0 0 3px;font-weight:600}
.big{font-size:30px;font-weight:600;text-align:center;padding-top:22px;color:#2f6fde}
table{border-collapse:collapse;width:100%;font-size:10.5px}td,th{text-align:left;padding:1px 5px;
border-bottom:1px solid #eceef1;white-space:nowrap}
.l{font-size:10.5px;color:#4b5764}.l b{font-weight:400;margin-right:9px}.l i{display:inline-block;
width:9px;height:3px;margin:0 3px 3px 0}
"""
_BESIDE = frozenset({"__name__", "instance", "job", "component", "source", "device"})
_TABLE_ROWS = 12

Answers = Mapping[str, Sequence[Series]]


def height(row: Row) -> int:
    """Pixels that a row takes."""
    top = min(panel.y for panel in row.panels)
    return _HEAD + max(panel.y + panel.height - top for panel in row.panels) * UNIT + _GAP


def page(row: Row, answers: Answers) -> str:
    """The row with what Prometheus answered to each of its queries."""
    top = min(panel.y for panel in row.panels)
    boxes = "".join(_box(panel, top, answers) for panel in row.panels)
    return (
        f'<!doctype html><meta charset="utf-8"><style>{_STYLE}</style>'
        f"<h1>{escape(row.title)}</h1>{boxes}"
    )


def _box(panel: Panel, top: int, answers: Answers) -> str:
    wide, high = panel.width * COLUMN - _GAP, panel.height * UNIT - _GAP
    left, down = panel.x * COLUMN + _GAP // 2, _HEAD + (panel.y - top) * UNIT
    draw: Mapping[str, Callable[[Panel, Answers, int, int], str]] = {
        "stat": _stat,
        "table": _table,
        "bargauge": _bars,
    }
    inside = draw.get(panel.kind, _lines)(panel, answers, wide - 18, high - 30)
    return (
        f'<div class="p" style="left:{left}px;top:{down}px;width:{wide}px;height:{high}px">'
        f"<h2>{escape(panel.title)}</h2>{inside}</div>"
    )


def _stat(panel: Panel, answers: Answers, _wide: int, _high: int) -> str:
    found = [s for query in panel.queries for s in answers[query.expression]]
    value = found[0].points[-1][1] if found else float("nan")
    return f'<div class="big">{_told(value, panel.unit)}</div>'


def _table(panel: Panel, answers: Answers, _wide: int, _high: int) -> str:
    found = [s for query in panel.queries for s in answers[query.expression]]
    columns = sorted({key for s in found for key in s.labels} - _BESIDE)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    rows = sorted([s.labels.get(column, "") for column in columns] for s in found)
    if panel.falling in columns:
        rows.sort(key=lambda row: row[columns.index(panel.falling)], reverse=True)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_short(cell))}</td>' for cell in row)}</tr>"
        for row in rows[:_TABLE_ROWS]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _bars(panel: Panel, answers: Answers, wide: int, _high: int) -> str:
    found = [
        (_legend(query, s), s.points[-1][1])
        for query in panel.queries
        for s in answers[query.expression]
    ]
    most = max((value for _, value in found), default=0.0) or 1.0
    bars = "".join(
        f"<tr><td>{escape(name)}</td><td>{_told(value, panel.unit)}</td>"
        f'<td><svg width="{wide - 200}" height="14"><rect width="{(wide - 200) * value / most:.1f}"'
        f' height="14" fill="{_colour(0)}"/></svg></td></tr>'
        for name, value in sorted(found)
    )
    return f"<table>{bars}</table>"


def _lines(panel: Panel, answers: Answers, wide: int, high: int) -> str:
    named = [
        (_legend(query, s), s.points) for query in panel.queries for s in answers[query.expression]
    ]
    named = [(n, [p for p in points if isfinite(p[1])]) for n, points in named]
    named = [(name, points) for name, points in named if points]
    # What was never anything else but zero tells least.
    named.sort(key=lambda each: not any(value for _, value in each[1]))
    if not named:
        return '<div class="l">no data</div>'
    begin = min(points[0][0] for _, points in named)
    end = max(points[-1][0] for _, points in named)
    most = max((value for _, points in named for _, value in points), default=0.0) or 1.0
    plot = high - 22

    def place(point: tuple[float, float]) -> str:
        x = 46 + (wide - 50) * (point[0] - begin) / max(end - begin, 1.0)
        return f"{x:.1f},{4 + (plot - 8) * (1 - point[1] / most):.1f}"

    axis = "".join(
        f'<line x1="46" x2="{wide - 4}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e7eb"/>'
        f'<text x="42" y="{y + 3:.1f}" text-anchor="end" font-size="9" fill="#6a7683">'
        f"{_told(share * most, panel.unit)}</text>"
        for share in (0.0, 0.5, 1.0)
        for y in [4 + (plot - 8) * (1 - share)]
    )
    drawn = "".join(
        f'<polyline fill="none" stroke="{_colour(n)}" stroke-width="1.4" '
        f'points="{" ".join(map(place, points))}"/>'
        for n, (_, points) in enumerate(named)
    )
    legend = "".join(
        f'<b><i style="background:{_colour(n)}"></i>{escape(name)}</b>'
        for n, (name, _) in enumerate(named[:_LEGENDS])
    )
    more = f"<b>and {len(named) - _LEGENDS} more</b>" if len(named) > _LEGENDS else ""
    picture = f'<svg width="{wide}" height="{plot}">{axis}{drawn}</svg>'
    return f'{picture}<div class="l">{legend}{more}</div>'


def _legend(query: Query, series: Series) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: series.labels.get(m[1], ""), query.legend)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _short(text: str) -> str:
    return f"{text[:12]}…" if text.startswith(("GPU-", "MIG-")) and len(text) > 13 else text


def _told(value: float, unit: str) -> str:
    match unit:
        case "percentunit":
            return f"{value * 100:.0f} %"
        case "s" if value < 1:
            return f"{value * 1000:.3g} ms"
        case "s" if value >= _DAYS:
            return f"{value / 86400:.0f} days"
        case "s":
            return f"{value:.3g} s"
        case "celsius":
            return f"{value:.0f} °C"
        case "watt":
            return f"{value:.0f} W"
        case "reqps":
            return f"{value:.3g}/s"
        case _:
            return f"{value:.3g}"
