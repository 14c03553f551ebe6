"""Rows as tables for people and as JSON for programs. Writes nothing but its argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.table import Table

from cli.fleet import GpuRow, Holder, NodeRow, PodRow
from gpus.model import Health
from gpus.quantity import written

Row = TypeVar("Row")
Column = tuple[str, Callable[[Row], str]]

#: Characters; longer than any line that the columns below make.
_WIDEST = 10_000

#: Health is a word and a sign; colour only repeats it.
_SIGN = {Health.HEALTHY: "ok", Health.FAULTY: "!", Health.LOST: "x", Health.UNMONITORED: "?"}

NODE_COLUMNS: Sequence[Column[NodeRow]] = (
    ("NODE", lambda row: row.node),
    ("PATH", lambda row: row.path),
    ("GPUS", lambda row: str(row.devices)),
    ("FREE", lambda row: str(row.free)),
    ("HELD", lambda row: str(row.held)),
    ("SHARED", lambda row: str(row.shared)),
    ("UNFIT", lambda row: str(row.unfit)),
    ("DRIVER", lambda row: row.driver or "n/a"),
    ("WHY", lambda row: row.fault or row.reason),
)
GPU_COLUMNS: Sequence[Column[GpuRow]] = (
    ("NODE", lambda row: row.node),
    ("GPU", lambda row: str(row.index)),
    ("MODEL", lambda row: row.product or "n/a"),
    ("MEMORY", lambda row: _mebibytes(row.memory_bytes)),
    ("PATH", lambda row: row.path),
    ("HEALTH", lambda row: _health(row)),
    ("HOLDER", lambda row: ", ".join(_holder(holder) for holder in row.holders) or "-"),
    ("UUID", lambda row: row.device),
)
POD_COLUMNS: Sequence[Column[PodRow]] = (
    ("NAMESPACE", lambda row: row.namespace),
    ("NAME", lambda row: row.name),
    ("ASKS", lambda row: row.asks),
    ("WISHES", lambda row: _wishes(row.wishes) or "-"),
    ("PHASE", lambda row: row.phase),
    ("NODE", lambda row: row.node or "-"),
    ("GPUS", lambda row: ",".join(row.devices) or "-"),
)


def table(stream: TextIO, rows: Sequence[Row], columns: Sequence[Column[Row]]) -> None:
    """Write rows under kubectl's kind of headers; nothing is ever cut, lines may be long."""
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header, _ in columns:
        grid.add_column(header, no_wrap=True)
    for row in rows:
        grid.add_row(*(cell(row) for _, cell in columns))
    # Rich would fold columns into the width of the terminal, or into 80 when piped.
    console = Console(file=stream, width=_WIDEST, markup=False, emoji=False)
    console.print(grid, soft_wrap=True)


def plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return rows as JSON-ready values; absent facts are null."""
    return [asdict(row) for row in rows]


def _wishes(wishes: Mapping[str, str]) -> str:
    """On one line, whatever was written."""
    return "; ".join(f"{key}={' '.join(text.split())}" for key, text in wishes.items())


def _holder(holder: Holder) -> str:
    share = f" ({written(holder.share_bytes)})" if holder.share_bytes else ""
    return f"{holder.pod}{share}"


def _health(row: GpuRow) -> str:
    word = f"{_SIGN[row.health]} {row.health}"
    return f"{word}: {row.health_reason}" if row.health_reason else word


def _mebibytes(memory: int | None) -> str:
    return "n/a" if memory is None else f"{memory >> 20} MiB"
