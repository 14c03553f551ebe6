"""`gpudetour explain`: why a pod waits or was refused, or why it got the GPUs that it has."""

from __future__ import annotations

import gc
import sys

import click

from cli.options import Target, targeted


@click.group(name="explain")
def explain() -> None:
    """Say why a pod waits, why it got these GPUs, or whether a node takes GPU pods."""
    # We live for a second, and what is read is needed to the end: looking for garbage among a
    # hundred thousand objects would take a fifth of that.
    gc.disable()


_OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the output.",
)


@explain.command()
@click.argument("name")
@_OUTPUT
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
    plain = _name(name, kinds=("pod", "pods", "po"))
    told = judge(read_facts(target.client(), namespace, plain))
    _show(as_json(told) if output == "json" else as_text(told))
    if told.state is State.REFUSED:
        click.get_current_context().exit(1)


@explain.command()
@click.argument("name")
@_OUTPUT
@targeted(namespaced=False)
def node(target: Target, name: str, output: str) -> None:
    """Say whether the node NAME takes GPU pods, by which path, and why not."""
    from explain.gather import read_node_facts
    from explain.node import as_json, as_text, explain_node

    facts, found = read_node_facts(target.client(), _name(name, kinds=("node", "nodes", "no")))
    told = explain_node(facts, found)
    _show(as_json(told) if output == "json" else as_text(told))


def _name(text: str, *, kinds: tuple[str, ...]) -> str:
    """Take `pod/NAME` for NAME, as kubectl does."""
    kind, slash, name = text.rpartition("/")
    if slash and kind not in kinds:
        raise click.UsageError(f"{text} is no {kinds[0]}; write explain {kinds[0]} NAME")
    return name


def _show(text: str) -> None:
    """Write plainly to pipes; to a terminal with headings in bold, unless NO_COLOR is set."""
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    for line in text.splitlines():
        heading = line[:1] not in (" ", "{", "}")
        console.print(line, style="bold" if heading else None, soft_wrap=True)
