"""`gpudetour completion SHELL`, names from the cluster, and what kubectl asks its plugins.

Names are a help, not an answer: whatever goes wrong while they are read, there are none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import msgspec
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from cli.options import Given, target_of
from gpus.annotations import GPU_SELECTOR
from kube.errors import KubeError
from kube.objects import ObjectMeta

_SHELLS = ("bash", "zsh", "fish")
_PROGRAM = "gpudetour"
#: Seconds; a person waits with a finger on the key.
_PATIENCE = 2.0
#: Names of one kind, which no screen shows all.
_MOST = "500"
_SELECTORS = {"nodes": {"labelSelector": GPU_SELECTOR}, "pods": {"labelSelector": GPU_SELECTOR}}
#: cobra's ShellCompDirectiveNoFileComp: kubectl shall not offer files instead.
_NO_FILES = ":4"
_GIVEN = ("kubeconfig", "context", "request_timeout", "namespace", "all_namespaces")


class _Named(msgspec.Struct):
    metadata: ObjectMeta = ObjectMeta()


class _Names(msgspec.Struct):
    items: list[_Named] | None = None


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete commands, options and names of the cluster.

    \b
    bash:  source <(gpudetour completion bash)
    zsh:   source <(gpudetour completion zsh)
    fish:  gpudetour completion fish | source

    For `kubectl gpudetour`, kubectl (1.26 or later) asks kubectl_complete-gpudetour on the PATH,
    which is installed beside gpudetour.
    """
    click.echo(_shell(shell).source())


def _shell(name: str) -> ShellComplete:
    from cli.__main__ import COMPLETE_VAR, main

    known = get_completion_class(name)
    if known is None:
        raise click.ClickException(f"no completion for {name}")
    return known(main, {}, _PROGRAM, COMPLETE_VAR)


def named(context: click.Context, kind: str, incomplete: str) -> list[CompletionItem]:
    """Return the names of `namespaces`, `nodes` or `pods` that begin so; none if unreadable."""
    given = {key: context.params[key] for key in _GIVEN if key in context.params}
    target = target_of(context, Given(**given))
    try:
        client = target.client().with_timeout(_PATIENCE)
        path = f"/api/v1/{kind}"
        if kind == "pods" and target.namespace:
            path = f"/api/v1/namespaces/{target.namespace}/pods"
        params = {**_SELECTORS.get(kind, {}), "limit": _MOST}
        names = client.get(path, type=_Names, params=params).items or ()
    except KubeError:
        return []
    found = (each.metadata.name for each in names)
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def for_kubectl() -> None:
    """Answer kubectl, which runs `kubectl_complete-gpudetour WORD... LAST`."""
    for line in answer(sys.argv[1:]):
        print(line)


def answer(words: Sequence[str]) -> list[str]:
    """Return a line for each way to go on, and how kubectl shall take them."""
    *before, last = words or [""]
    found = _shell("bash").get_completions(list(before), last)
    return [*(f"{item.value}\t{item.help or ''}".rstrip("\t") for item in found), _NO_FILES]
