"""`gpudetour doctor`: what to look at, and how to tell it. The doctor's composition root."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click

from cli.options import Target, targeted
from doctor.checks.catalogue import CHECKS
from doctor.diagnosis import diagnose
from doctor.facts.cluster import Cluster
from doctor.facts.facts import Facts
from doctor.facts.host import Host
from doctor.gather.cluster import NoSuchNode, read_cluster
from doctor.gather.host import read_host
from doctor.gather.nvml import ask_nvml
from doctor.gather.packages import run_program
from doctor.gather.tree import MOST, Tree
from doctor.progress import Progress
from doctor.report import as_json, as_text, catalogue
from kube.errors import KubeError

_BROKEN, _USAGE = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What to look at: a root directory, a node of the cluster, a log; or several of them."""

    host_root: Path | None
    node: str | None
    plugin_log: TextIO | None


@click.command(name="doctor")
@click.option(
    "--host-root",
    type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
    help="Root of the node's files, such as /host in the agent's container."
    "  [default: / unless --node is given]",
)
@click.option("--node", help="Name of a Node, to be looked at through the API server.")
@click.option(
    "--plugin-log",
    type=click.File("r", errors="replace"),
    help="Log of NVIDIA's device plugin or of the runtime; - reads standard input.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option("-v", "--verbose", is_flag=True, help="Show the checks that passed as well.")
@click.option(
    "--checks",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, wanted: _list_checks(context) if wanted else None,
    help="List all checks as a Markdown table, and look at nothing.",
)
@targeted(namespaced=False)
def doctor(
    target: Target,
    host_root: Path | None,
    node: str | None,
    plugin_log: TextIO | None,
    output: str,
    verbose: bool,
) -> None:
    """Say why the GPUs of a node cannot be used, and which command mends it.

    Looks at this machine, at another root directory, or at a node through the API server. It only
    reads. Exit status: 0 when all is well, 1 when something is broken, 2 when it could not look.
    """
    subject = Subject(host_root=host_root, node=node, plugin_log=plugin_log)
    try:
        facts = _read(subject, target)
    except (KubeError, NoSuchNode) as error:
        click.echo(f"cannot read the cluster: {error}", err=True)
        sys.exit(_USAGE)
    diagnosis = diagnose(facts, CHECKS)
    if output == "json":
        click.echo(as_json(diagnosis), nl=False)
    else:
        click.echo(as_text(diagnosis, verbose=verbose), nl=False)
    sys.exit(_BROKEN if diagnosis.is_broken else 0)


def _list_checks(context: click.Context) -> None:
    click.echo(catalogue(CHECKS))
    context.exit()


def _read(subject: Subject, target: Target) -> Facts:
    given = subject.plugin_log.read(MOST) if subject.plugin_log else None
    root = subject.host_root
    if root is None and subject.node is None:
        root = Path("/")
    with Progress(lambda text: click.echo(text, err=True)) as progress:
        host = Host() if root is None else _read_host(root, progress)
        cluster, found = Cluster(), None
        if subject.node is not None:
            cluster, found = read_cluster(target.client(), subject.node, step=progress.step)
    return Facts(host=host, cluster=cluster, plugin_log=given if given is not None else found)


def _read_host(root: Path, progress: Progress) -> Host:
    tree = Tree(root)
    run = run_program if tree.is_own else None
    return read_host(tree, probe=ask_nvml, run=run, step=progress.step)
