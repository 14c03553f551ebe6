"""`gpudetour pods`."""

from __future__ import annotations

from dataclasses import replace

import click

from cli.columns import pod_columns
from cli.lists import Listing, run
from cli.options import Target, completing, listing, targeted, watching
from cli.reading import Scope
from cli.rows import Fleet, PodRow


@click.command()
@click.argument("names", metavar="[POD]...", nargs=-1, shell_complete=completing("pods"))
@listing()
@watching
@targeted(namespaced=True)
def pods(
    target: Target, names: tuple[str, ...], output: str | None, no_headers: bool, watch: bool
) -> None:
    """List the pods that ask for GPUs: what they asked for, what they got, and where.

    Why one of them waits is told by `gpudetour explain pod NAME`.
    """
    namespace = target.namespace

    def rows(fleet: Fleet) -> list[PodRow]:
        return [row for row in fleet.pods if not names or row.name in names]

    where = f" in namespace {namespace}; -A looks into all" if namespace else ""
    run(
        target,
        Listing(
            scope=Scope(namespace=namespace, pods=True),
            rows=rows,
            columns=pod_columns(wide=output == "wide", namespace=namespace is None),
            name=lambda row: f"pod/{row.name}",
            gone=lambda row: replace(row, phase="Deleted"),
            asked=names,
            asked_of=lambda row: row.name,
            nothing=f"No GPU pods found{where}.",
        ),
        output=output,
        headers=not no_headers,
        watch=watch,
    )
