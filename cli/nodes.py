"""`gpudetour nodes`."""

from __future__ import annotations

from dataclasses import replace

import click

from cli.columns import node_columns
from cli.lists import Listing, run
from cli.options import Target, completing, listing, targeted, watching
from cli.reading import Scope
from cli.rows import Fleet, NodeRow


@click.command()
@click.argument("names", metavar="[NODE]...", nargs=-1, shell_complete=completing("nodes"))
@listing()
@watching
@targeted(namespaced=False)
def nodes(
    target: Target, names: tuple[str, ...], output: str | None, no_headers: bool, watch: bool
) -> None:
    """List GPU nodes: path, driver, GPUs free and held, and what is wrong.

    BEAT is how long ago the node's agent said that it lives. UNFIT are GPUs that nobody holds and
    nobody gets, because they are not healthy.
    """

    def rows(fleet: Fleet) -> list[NodeRow]:
        return [row for row in fleet.nodes if not names or row.node in names]

    run(
        target,
        Listing(
            scope=Scope(leases=True),
            rows=rows,
            columns=node_columns(wide=output == "wide"),
            name=lambda row: f"node/{row.node}",
            gone=lambda row: replace(row, path="gone", reason="the Node was deleted", free=0),
            asked=names,
            asked_of=lambda row: row.node,
            nothing="No GPU nodes found. They appear once their gpudetour agent has reported.",
        ),
        output=output,
        headers=not no_headers,
        watch=watch,
    )
