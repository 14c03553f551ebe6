"""Rows as tables for people and as JSON or YAML for programs. Writes nothing but its stream.

On a terminal rich says which colours there are and how wide a text is; a pipe gets plain text, and
rich is not even imported. Nothing is ever cut: lines may be long. Columns are laid out here, for
rich takes seconds to do so with the GPUs of a thousand nodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TextIO, TypeVar

Row = TypeVar("Row")

_GAP = "   "
_HEADER = "bold"


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Row]):
    """What one column says of a row at a moment. `style` only repeats in colour what is said."""

    header: str
    cell: Callable[[Row, datetime], str]
    wide: bool = False
    style: Callable[[Row], str] | None = None


class Table(Generic[Row]):
    """Writes rows under kubectl's kind of headers; later rows stand under the same ones."""

    def __init__(
        self, stream: TextIO, columns: Sequence[Column[Row]], *, headers: bool = True
    ) -> None:
        self._stream = stream
        self._columns = columns
        self._headers = headers
        self._widths = [0] * len(columns)
        self._pen: _Pen = _Screen(stream) if stream.isatty() else _Pen()

    def write(self, rows: Sequence[Row], *, now: datetime) -> None:
        """Write rows; of the first time, with the headers."""
        lines = [
            [
                (one_line(column.cell(row, now)), column.style(row) if column.style else "")
                for column in self._columns
            ]
            for row in rows
        ]
        if self._headers:
            lines.insert(0, [(column.header, _HEADER) for column in self._columns])
            self._headers = False
        for line in lines:
            widths = (self._pen.width(text) for text, _ in line)
            self._widths = list(map(max, self._widths, widths))
        self._stream.writelines(self._line(line) for line in lines)
        self._stream.flush()

    def _line(self, line: Sequence[tuple[str, str]]) -> str:
        pen, cells = self._pen, []
        for (text, style), width in zip(line, self._widths, strict=True):
            filling = " " * (width - pen.width(text))
            cells.append((pen.styled(text, style) if style else text) + filling)
        return _GAP.join(cells).rstrip() + "\n"


class _Pen:
    """For pipes and files: no colour."""

    def width(self, text: str) -> int:
        return len(text)

    def styled(self, text: str, style: str) -> str:
        del style
        return text


class _Screen(_Pen):
    """For terminals: rich knows their colours (NO_COLOR, TERM), and wide characters."""

    def __init__(self, stream: TextIO) -> None:
        from rich.cells import cell_len
        from rich.console import Console

        self.width = cell_len  # type: ignore[method-assign]  # the same, for terminals
        self._console = Console(file=stream)

    def styled(self, text: str, style: str) -> str:
        console = self._console
        if console.color_system is None:
            return text
        found = console.get_style(style)
        if console.no_color:
            found = found.without_color
        return found.render(text, color_system=console._color_system)  # noqa: SLF001 - no other way


def one_line(text: str) -> str:
    """Return text that others wrote without line ends and without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in _joined(text))


def _joined(text: str) -> str:
    return " ".join(text.split())


def plain(row: Any) -> Any:
    """Return a row, or many, as values for JSON; absent facts are null, moments are RFC 3339."""
    match row:
        case datetime():
            return row.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Mapping():
            return {key: plain(row[key]) for key in row}
        case list() | tuple():
            return [plain(each) for each in row]
    if is_dataclass(row):
        return {field.name: plain(getattr(row, field.name)) for field in fields(row)}
    return row


def document(rows: Sequence[Any], output: str) -> str:
    """Return rows as one JSON or YAML document, of a list."""
    if output == "json":
        return json.dumps(plain(rows), indent=2) + "\n"
    import yaml

    return yaml.dump(
        _bare(plain(rows)), Dumper=yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper,
        sort_keys=False, allow_unicode=True,
    )  # fmt: skip


def _bare(value: Any) -> Any:
    """The same without enums and other kinds of str, of which YAML would tell the class."""
    match value:
        case dict():
            return {_bare(key): _bare(each) for key, each in value.items()}
        case list():
            return [_bare(each) for each in value]
        case str():
            return str.__str__(value)
    return value
