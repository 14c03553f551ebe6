"""The table of the commands of `gpudetour`; a command's module is imported when it is asked for.

Help and completion of names are answered from the table, so they cost no import either.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from cli.options import Given, group_options
from kube.errors import KubeError


class Entry(NamedTuple):
    """Where a command is, as "module:attribute", and its line in the list of commands."""

    where: str
    summary: str


COMMANDS: Mapping[str, Entry] = {
    "nodes": Entry("cli.nodes:nodes", "List GPU nodes: path, driver, free and held GPUs, health."),
    "gpus": Entry("cli.gpus:gpus", "List every GPU: temperature, use, memory, and who holds it."),
    "pods": Entry("cli.pods:pods", "List GPU pods: what they asked for, what they got, where."),
    "explain": Entry("cli.explain:explain", "Say why a pod waits, or why it got these GPUs."),
    "usage": Entry("cli.usage:usage", "Sum up GPU-hours by namespace over a period."),
    "doctor": Entry("cli.doctor:doctor", "Say why the GPUs of a node cannot be used."),
    "preflight": Entry("cli.preflight:preflight", "Check a cluster before the install."),
    "scheduler-config": Entry(
        "cli.scheduler_config:scheduler_config", "Print the configuration for kube-scheduler."
    ),
    "node-setup": Entry("cli.node_setup:node_setup", "Print the cloud-init for a new GPU node."),
    "version": Entry("cli.version:version", "Print the versions of this program and the server."),
    "completion": Entry("cli.completion:completion", "Print the completion script of a shell."),
}
#: Looked up by click for its completion, whatever name the program was started by.
COMPLETE_VAR = "_GPUDETOUR_COMPLETE"
_KUBECTL_PLUGIN = "kubectl-gpudetour"


class Commands(click.Group):
    """Finds commands in `COMMANDS`, and says what went wrong where the cluster cannot be read."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which is the order of use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.where.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete names of commands from the table, and options as ever."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete) and not incomplete.startswith("-")
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what the API server refuses is told in words that help, with status 1."""
        try:
            return super().invoke(ctx)
        except KubeError as error:
            from cli.refusals import told

            click.echo(told(error), err=True)
            ctx.exit(1)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Call ourselves as we were called: `kubectl gpudetour`, where kubectl starts us."""
        if extra.get("prog_name") is None and Path(sys.argv[0]).name == _KUBECTL_PLUGIN:
            extra["prog_name"] = _KUBECTL_PLUGIN.replace("-", " ")
        extra.setdefault("complete_var", COMPLETE_VAR)
        return super().main(*args, **extra)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@group_options
@click.pass_context
def main(context: click.Context, /, **given: Any) -> None:
    """See the GPUs of a cluster, ask why a pod waits, and find out what is broken.

    Nothing here changes the cluster.
    """
    context.obj = Given(**given)


if __name__ == "__main__":
    main(prog_name="gpudetour")
