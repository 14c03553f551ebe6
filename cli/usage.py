"""`gpudetour usage`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click
import msgspec

from cli.ages import age
from cli.options import Duration, Target, listing, targeted
from cli.reading import SYSTEM
from cli.render import Column, Table, document
from gpus.usage import CONFIG_MAP_PREFIX, OTHERS, Month, months_between, read_month
from kube.client import Client
from kube.errors import NotFound
from kube.objects import ObjectMeta

_HOUR = 3600.0
_WEEK = 7 * 86400.0
_NOTHING = (
    "Nothing is recorded for this period. The extender that leads writes who held how many GPUs\n"
    f"every five minutes, to ConfigMaps {CONFIG_MAP_PREFIX}YYYY-MM in {SYSTEM}: see that it runs"
    " (gpudetour version),\nor name a longer period with --since."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What one namespace held: GPU-hours, and its share of what all held (0 to 1)."""

    namespace: str
    gpu_hours: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """All of it, most first; `installed_hours` are those of all GPUs, held or not."""

    rows: tuple[UsageRow, ...]
    held_hours: float
    installed_hours: float
    recorded_upto: datetime | None


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None


@click.command()
@click.option(
    "--since",
    type=Duration(),
    default=_WEEK,
    help="Length of the period that ends now, such as 24h or 30d.  [default: 7d]",
)
@listing()
@targeted(namespaced=True)
def usage(target: Target, since: float, output: str | None, no_headers: bool) -> None:
    """Sum up GPU-hours by namespace over a period, from what the extender records.

    A GPU that is held for an hour is a GPU-hour, whatever it does; a share counts by its part of
    the GPU's memory, a MIG instance by its slices. SHARE is the part of what all namespaces held.
    """
    now = datetime.now(UTC)
    begin = now - timedelta(seconds=since)
    used = sum_up(_read(target.client(), begin, now), begin)
    if used is None:
        click.echo(_NOTHING, err=True)
        if output in ("json", "yaml"):
            click.echo(document([], output), nl=False)
        return
    rows = [row for row in used.rows if target.named_namespace in (None, row.namespace)]
    match output:
        case "json" | "yaml":
            click.echo(document(rows, output), nl=False)
        case "name":
            click.echo("".join(f"namespace/{row.namespace}\n" for row in rows), nl=False)
        case _:
            Table(sys.stdout, _COLUMNS, headers=not no_headers).write(rows, now=now)
            click.echo(footer(used, now), err=True)


def _read(client: Client, begin: datetime, end: datetime) -> list[Month]:
    months = []
    for name in months_between(begin, end):
        path = f"/api/v1/namespaces/{SYSTEM}/configmaps/{CONFIG_MAP_PREFIX}{name}"
        try:
            found = client.get(path, type=_ConfigMap)
        except NotFound:
            continue
        month, faults = read_month(name, found.data or {})
        for fault in faults:
            click.echo(f"note: left out, for it cannot be read: {name} {fault}", err=True)
        months.append(month)
    return months


def sum_up(months: Sequence[Month], begin: datetime) -> Used | None:
    """Return what was held since `begin`; None where nothing is recorded."""
    seconds: dict[str, float] = {}
    for month in months:
        for name, amount in month.since(begin).items():
            seconds[name] = seconds.get(name, 0.0) + amount
    held = sum(seconds.values())
    installed = sum(month.installed_since(begin) for month in months)
    if not held and not installed:
        return None
    found = {name: amount for name, amount in seconds.items() if amount}
    return Used(
        rows=tuple(
            UsageRow(
                namespace="(others)" if name == OTHERS else name,
                gpu_hours=round(found[name] / _HOUR, 3),
                share=round(found[name] / held, 4),
            )
            for name in sorted(found, key=lambda name: (-found[name], name))
        ),
        held_hours=held / _HOUR,
        installed_hours=installed / _HOUR,
        recorded_upto=max((month.upto for month in months if month.upto), default=None),
    )


def footer(used: Used, now: datetime) -> str:
    """Return how much that is of what there was, and how fresh it is."""
    part = f" of {used.installed_hours:.1f} installed" if used.installed_hours else ""
    percent = (
        f", {100 * used.held_hours / used.installed_hours:.0f}%" if used.installed_hours else ""
    )
    fresh = f"; recorded up to {age(used.recorded_upto, now)} ago" if used.recorded_upto else ""
    return f"{used.held_hours:.1f} GPU-hours held{part}{percent}{fresh}"


_COLUMNS: Sequence[Column[UsageRow]] = (
    Column(header="NAMESPACE", cell=lambda row, _: row.namespace),
    Column(header="GPU-HOURS", cell=lambda row, _: f"{row.gpu_hours:.1f}"),
    Column(header="SHARE", cell=lambda row, _: f"{100 * row.share:.1f}%"),
)
