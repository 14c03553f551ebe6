"""The growth of a filter's cost with its list of names, as an SVG: lines over two axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Tree

from localcluster.bench.outcome import Asked, Growth
from localcluster.files import write_atomically

_WIDTH, _HEIGHT = 800, 450
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 30, 50, 100
_COLORS = ("#1b6ca8", "#8fbbdb", "#c0632f")
_MARKS = 6
"""About how many lines of the grid an axis gets."""

Line = Sequence[tuple[float, float]]


def write_chart(growth: Growth, target: Path) -> None:
    """Draw the medians of ours, with and without a node that fits, and of the stub."""
    title = f"A filter over HTTPS: {growth.nodes:,} nodes, {growth.pods:,} bound pods"
    picture = drawn(
        series(growth), title=title, across="names in the request", upwards="milliseconds, median"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, Tree.tostring(picture, encoding="utf-8", xml_declaration=True))


def series(growth: Growth) -> dict[str, Line]:
    """The lines: names in the list, milliseconds."""
    found = {
        "some nodes fit": _line(growth.ours),
        "no node fits": _line(growth.nowhere),
        "do-nothing stub": _line(growth.stub),
    }
    return {name: line for name, line in found.items() if line}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Maps values from 0 to at least `most` to places from `start` to `end`."""

    most: float
    start: float
    end: float

    @property
    def step(self) -> float:
        """The distance between marks: 1, 2 or 5 times a power of ten."""
        rough = self.most / _MARKS
        power = 10.0 ** math.floor(math.log10(rough))
        return next(nice * power for nice in (1, 2, 5, 10) if nice * power >= rough * 0.999)

    @property
    def marks(self) -> list[float]:
        """From 0 to the first mark that no value exceeds."""
        count = math.ceil(self.most / self.step - 1e-9)
        return [number * self.step for number in range(count + 1)]

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        return self.start + (self.end - self.start) * value / self.marks[-1]


def drawn(lines: Mapping[str, Line], *, title: str, across: str, upwards: str) -> Tree.Element:
    """The picture: axes from zero, a line with dots for each series, and what they are."""
    everything = [point for line in lines.values() for point in line]
    x = Axis(most=max(x for x, _ in everything), start=_LEFT, end=_WIDTH - _RIGHT)
    y = Axis(most=max(y for _, y in everything), start=_HEIGHT - _BOTTOM, end=_TOP)
    picture = Tree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {_HEIGHT}",
            "font-family": "sans-serif",
            "font-size": "13",
        },
    )
    _add(picture, "rect", width=_WIDTH, height=_HEIGHT, fill="white")
    _write(picture, title, _LEFT, _TOP / 2, anchor="start")
    _write(picture, across, (x.start + x.end) / 2, y.start + 40)
    _write(picture, upwards, 20, (y.start + y.end) / 2, turned=True)
    for place, text in _grid(x):
        _add(picture, "line", x1=place, x2=place, y1=y.start, y2=y.end, stroke="#dddddd")
        _write(picture, text, place, y.start + 18)
    for place, text in _grid(y):
        _add(picture, "line", x1=x.start, x2=x.end, y1=place, y2=place, stroke="#dddddd")
        _write(picture, text, x.start - 8, place + 4, anchor="end")
    for number, (name, line) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        _draw(picture, [(x.place(each), y.place(value)) for each, value in line], color)
        at = _LEFT + number * (_WIDTH - _LEFT) / len(lines)
        _add(picture, "rect", x=at, y=_HEIGHT - 30, width=12, height=12, fill=color)
        _write(picture, name, at + 18, _HEIGHT - 20, anchor="start")
    return picture


def _draw(picture: Tree.Element, places: Line, color: str) -> None:
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    _add(picture, "polyline", points=points, fill="none", stroke=color)
    for left, top in places:
        _add(picture, "circle", cx=left, cy=top, r=3, fill=color)


def _grid(axis: Axis) -> Iterator[tuple[float, str]]:
    for mark in axis.marks:
        yield axis.place(mark), f"{mark:,.6g}"


def _add(picture: Tree.Element, kind: str, **attributes: str | float) -> Tree.Element:
    told = {
        name: each if isinstance(each, str) else f"{each:g}" for name, each in attributes.items()
    }
    return Tree.SubElement(picture, kind, told)


def _write(
    picture: Tree.Element,
    text: str,
    left: float,
    top: float,
    *,
    anchor: str = "middle",
    turned: bool = False,
) -> None:
    element = _add(picture, "text", x=left, y=top)
    element.set("text-anchor", anchor)
    if turned:
        element.set("transform", f"rotate(-90 {left:g} {top:g})")
    element.text = text


def _line(asked: Mapping[int, Asked]) -> Line:
    return [(names, point.p50 * 1000) for names, point in sorted(asked.items())]
