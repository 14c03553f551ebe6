"""`gpudetour preflight`: whether a cluster can take gpudetour. Its composition root."""

from __future__ import annotations

import sys

import click

from cli.options import Target, targeted
from cli.refusals import told
from doctor.progress import Progress
from doctor.report import catalogue
from kube.errors import KubeError
from preflight.catalogue import CHECKS
from preflight.question import ask, is_ready
from preflight.read import read_surroundings
from preflight.report import as_json, as_text

_NOT_READY, _UNANSWERED = 1, 2


@click.command(name="preflight")
@targeted(namespaced=False)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option(
    "--checks",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, wanted: _list_checks(context) if wanted else None,
    help="List all checks as a Markdown table, and look at nothing.",
)
def preflight(target: Target, output: str) -> None:
    """Check a cluster before the install, and say how to live with what is in it.

    It changes nothing: what it tries are dry runs. Exit status: 0 when nothing stands against the
    install, 1 when something does, 2 when it could not look.
    """
    try:
        with Progress(lambda text: click.echo(text, err=True)) as progress:
            seen = read_surroundings(target.client(), step=progress.step)
    except KubeError as error:
        click.echo(told(error), err=True)
        sys.exit(_UNANSWERED)
    findings = ask(CHECKS, seen)
    click.echo(as_json(findings, seen) if output == "json" else as_text(findings, seen), nl=False)
    sys.exit(0 if is_ready(findings) else _NOT_READY)


def _list_checks(context: click.Context) -> None:
    click.echo(catalogue(CHECKS))
    context.exit()
