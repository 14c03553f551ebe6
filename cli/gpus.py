"""`gpudetour gpus`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from cli.columns import gpu_columns
from cli.lists import Listing, run
from cli.options import Target, completing, listing, targeted, watching
from cli.reading import Scope
from cli.rows import Fleet, GpuRow
from kube.client import Client


@click.command()
@click.argument("names", metavar="[NODE]...", nargs=-1, shell_complete=completing("nodes"))
@listing()
@watching
@targeted(namespaced=True)
def gpus(
    target: Target, names: tuple[str, ...], output: str | None, no_headers: bool, watch: bool
) -> None:
    """List every GPU: model, temperature, use, memory, health, and the pods that hold it.

    With -n, those that pods of that namespace hold. Temperature, use and memory in use come from
    the node agents; that needs the right to get pods/proxy in gpudetour-system.
    """
    namespace = target.named_namespace

    def rows(fleet: Fleet) -> list[GpuRow]:
        return [
            row
            for row in fleet.gpus
            if (not names or row.node in names) and (namespace is None or _held_in(row, namespace))
        ]

    run(
        target,
        Listing(
            scope=Scope(),
            rows=rows,
            columns=gpu_columns(wide=output == "wide"),
            name=lambda row: f"gpu/{row.device}",
            gone=lambda row: replace(row, path="gone", health_reason="no longer reported"),
            detail=_with_figures,
            asked=names,
            asked_of=lambda row: row.node,
            nothing="No GPUs found. They appear once the gpudetour agent of their node has"
            " reported.",
        ),
        output=output,
        headers=not no_headers,
        watch=watch,
    )


def _held_in(row: GpuRow, namespace: str) -> bool:
    return any(holder.pod.startswith(f"{namespace}/") for holder in row.holders)


def _with_figures(client: Client, rows: Sequence[GpuRow]) -> tuple[list[GpuRow], str]:
    from cli.live import read_live

    live = read_live(client, {row.node for row in rows})
    note = f"TEMP, UTIL and memory in use are missing: {live.trouble}" if live.trouble else ""
    return [replace(row, now=live.figures.get(row.device)) for row in rows], note
