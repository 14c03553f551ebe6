"""The command `python -m localcluster`: reads options, puts a cluster together, prints what
happened.
"""

from __future__ import annotations

from pathlib import Path

import click

from localcluster.cluster import LocalCluster
from localcluster.guard import wait_for_owner_end


@click.group()
def main() -> None:
    """A real Kubernetes on this machine."""


@main.command(hidden=True)
@click.option("--state", type=click.Path(path_type=Path), required=True)
def guard(state: Path) -> None:
    """Take the cluster down when standard input ends."""
    wait_for_owner_end()
    LocalCluster(state).down()


main()
