"""What `nodes`, `gpus` and `pods` have in common: read, pick rows, write them as was asked for.

Notes and what was not found go to standard error, so that output can be piped.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import click

from cli.fleet import Seen, fleet
from cli.options import Target
from cli.reading import Scope, read
from cli.refusals import denied
from cli.render import Column, Table, document
from cli.rows import Fleet
from kube.client import Client

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[Row]):
    """One kind of list: what to read for it, which rows it has, and how they are written.

    `name` is that of `-o name`, and tells rows apart; `gone` turns the last row of what vanished
    into what is printed of it. `detail` adds what is asked for row by row, and a note on what is
    missing. `asked` are the names on the command line, which `asked_of` finds in a row.
    """

    scope: Scope
    rows: Callable[[Fleet], Sequence[Row]]
    columns: Sequence[Column[Row]]
    name: Callable[[Row], str]
    gone: Callable[[Row], Row]
    nothing: str
    asked_of: Callable[[Row], str]
    asked: tuple[str, ...] = ()
    detail: Callable[[Client, Sequence[Row]], tuple[Sequence[Row], str]] | None = None


Show = Callable[[Sequence[Row], Seen], None]


def run(
    target: Target, listing: Listing[Row], *, output: str | None, headers: bool, watch: bool
) -> None:
    """Write the list once, or go on with what changes."""
    client = target.client()
    show = _shower(listing, output, headers=headers)
    if watch:
        from cli.following import follow

        follow(client, listing, show)
        return
    # We live for a second, and nearly all that is read is needed to the end.
    gc.disable()
    seen, missed = read(client, listing.scope)
    rows, note = detailed(client, listing, listing.rows(fleet(seen)))
    if rows or output in ("json", "yaml"):
        show(rows, seen)
    if note and output in (None, "wide"):
        click.echo(f"note: {note}", err=True)
    for error in missed:
        click.echo(f"note: not all is shown, {denied(error)}", err=True)
    if not rows and not listing.asked:
        click.echo(listing.nothing, err=True)
    _check(listing, rows)


def detailed(
    client: Client, listing: Listing[Row], rows: Sequence[Row]
) -> tuple[Sequence[Row], str]:
    """Return the rows with what is asked for one by one, and a note on what is missing."""
    if listing.detail is None or not rows:
        return rows, ""
    return listing.detail(client, rows)


def _shower(listing: Listing[Row], output: str | None, *, headers: bool) -> Show[Row]:
    table = Table(sys.stdout, listing.columns, headers=headers)

    def show(rows: Sequence[Row], seen: Seen) -> None:
        match output:
            case "json" | "yaml":
                sys.stdout.write(document(rows, output))
            case "name":
                sys.stdout.writelines(f"{listing.name(row)}\n" for row in rows)
            case _:
                table.write(rows, now=seen.at)
        sys.stdout.flush()

    return show


def _check(listing: Listing[Row], rows: Sequence[Row]) -> None:
    found = {listing.asked_of(row) for row in rows}
    if absent := [name for name in dict.fromkeys(listing.asked) if name not in found]:
        click.echo(f"error: not found: {', '.join(absent)}", err=True)
        sys.exit(1)
