"""The commands of `gpudetour`. Options follow kubectl where kubectl has them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import click

from cli import render
from cli.doctor import doctor
from cli.fleet import Fleet, fleet
from cli.node_setup import node_setup
from gpus.annotations import GPU_SELECTOR
from kube.client import Client
from kube.connection import connect
from kube.errors import KubeError
from kube.objects import Node, Pod


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kubeconfig", help="Path to the kubeconfig file; default as kubectl's.")
@click.option("--context", "kube_context", help="Name of the kubeconfig context to use.")
@click.pass_context
def main(context: click.Context, kubeconfig: str | None, kube_context: str | None) -> None:
    """Show the GPUs of a cluster: who holds which, by which path, and how they fare."""
    context.obj = (kubeconfig, kube_context)


_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
)


@main.command()
@_OUTPUT
@click.pass_obj
def nodes(where: tuple[str | None, str | None], output: str) -> None:
    """List GPU nodes with their path and how many GPUs are free."""
    _show(_read(where).nodes, render.NODE_COLUMNS, output=output)


@main.command()
@_OUTPUT
@click.pass_obj
def gpus(where: tuple[str | None, str | None], output: str) -> None:
    """List every GPU with its health and the pod that holds it."""
    _show(_read(where).gpus, render.GPU_COLUMNS, output=output)


@main.command()
@_OUTPUT
@click.pass_obj
def pods(where: tuple[str | None, str | None], output: str) -> None:
    """List the pods that ask for GPUs, what they got and where."""
    _show(_read(where).pods, render.POD_COLUMNS, output=output)


main.add_command(doctor)
main.add_command(node_setup)


@main.command(name="version")
def show_version() -> None:
    """Print the version of gpudetour."""
    click.echo(version("gpudetour"))


def read_fleet(client: Client) -> Fleet:
    """Read all nodes and all GPU pods from the API server."""
    selector = {"labelSelector": GPU_SELECTOR}
    return fleet(
        client.list_all("/api/v1/nodes", type=Node).items,
        client.list_all("/api/v1/pods", type=Pod, params=selector).items,
    )


def _read(where: tuple[str | None, str | None]) -> Fleet:
    kubeconfig, kube_context = where
    try:
        return read_fleet(Client(connect(kubeconfig, context=kube_context)))
    except KubeError as error:
        click.echo(f"cannot read the cluster: {error}", err=True)
        sys.exit(1)


def _show(rows: Sequence[Any], columns: Sequence[render.Column[Any]], *, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(render.plain(rows), indent=2))
    elif rows:
        render.table(sys.stdout, rows, columns)
    else:
        click.echo("No GPUs found. Nodes appear once their gpudetour agent has reported.")


if __name__ == "__main__":
    main()
