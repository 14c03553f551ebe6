"""`gpudetour explain`: why a pod waits or was refused, or why it got the GPUs that it has."""

from __future__ import annotations

import click

from cli.options import Target, targeted


@click.group(name="explain")
def explain() -> None:
    """Say why a pod waits, or why it got these GPUs."""


@explain.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@targeted(namespaced=True)
def pod(target: Target, name: str, output: str) -> None:
    """Say why the pod NAME waits, was refused, or got the GPUs that it has.

    NAME may also be that of a Job, Deployment or other controller whose pods are refused. The right
    cause comes first, then the nodes in groups, with what ends each. Exit status: 0, or 1 when
    there is no such pod or the cluster could not be read.
    """
    from explain.findings import State
    from explain.gather import read_facts
    from explain.judge import explain as judge
    from explain.report import as_json, as_text

    namespace = target.namespace
    if namespace is None:
        raise click.UsageError("a pod is in one namespace: name it with -n instead of -A")
    kind, slash, plain = name.rpartition("/")
    if slash and kind not in ("pod", "pods", "po"):
        raise click.UsageError(f"{name} is no pod; write explain pod NAME")
    told = judge(read_facts(target.client(), namespace, plain))
    click.echo(as_json(told) if output == "json" else as_text(told), nl=False)
    if told.state is State.REFUSED:
        click.get_current_context().exit(1)
