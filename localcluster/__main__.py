"""The command `python -m localcluster`: reads options, puts a cluster together, reports."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from localcluster import rendering
from localcluster.api import ApiError
from localcluster.cluster import KubectlError, LocalCluster
from localcluster.guard import wait_for_owner_end
from localcluster.layout import StateError
from localcluster.node.machine import NodeError
from localcluster.parts.catalogue import UnknownPart, architecture, catalogue
from localcluster.parts.obtain import PartsUnavailable, ensure
from localcluster.parts.progress import progress_on
from localcluster.processes import ProcessDied
from localcluster.settings import default_settings
from localcluster.shipped import ManifestError
from localcluster.toolchain import ToolchainError
from localcluster.waiting import WaitedTooLong

_FAULTS = (
    ApiError,
    KubectlError,
    ManifestError,
    NodeError,
    OSError,
    PartsUnavailable,
    ProcessDied,
    StateError,
    ToolchainError,
    UnknownPart,
    WaitedTooLong,
)
"""What is told in words; anything else is a bug and shows its trace."""

_NOT_WHOLE = 3
_NOT_THERE = 4


class _Commands(click.Group):
    """Turns known faults into a message and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except _FAULTS as error:
            raise click.ClickException(str(error)) from error


def _state_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_settings().state,
        envvar="GPUDETOUR_STATE",
        show_default=True,
        help="Folder that holds everything of this cluster.",
    )(command)


@click.group(cls=_Commands)
def main() -> None:
    """A real Kubernetes on this machine: control plane, one real node, simulated nodes."""
    # As Ctrl-C: what was started is taken down on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@main.command()
@_state_option
@click.option("--node", is_flag=True, help="Add the real node `node1`; needs root.")
@click.option("--simulated", type=click.IntRange(0, 1000), default=0, help="Add simulated nodes.")
@click.option("--foreground", is_flag=True, help="Stay, and take the cluster down at Ctrl-C.")
def up(state: Path, *, node: bool, simulated: int, foreground: bool) -> None:
    """Start a cluster and leave it running."""
    cluster = LocalCluster(state, node=node, progress=progress_on(sys.stderr))
    cluster.start(guarded=foreground)
    try:
        if simulated:
            cluster.create_simulated_nodes(f"simulated-{number + 1}" for number in range(simulated))
    except BaseException:
        cluster.down()
        raise
    click.echo(f"export KUBECONFIG={cluster.admin_kubeconfig}")
    if foreground:
        click.echo("Ctrl-C takes the cluster down.")
        _wait_for_interrupt(cluster)


@main.command()
@_state_option
def down(state: Path) -> None:
    """End a cluster with everything that it started, and remove its folder."""
    LocalCluster(state, progress=progress_on(sys.stderr)).down()


@main.command()
@_state_option
def status(state: Path) -> None:
    """Show processes and nodes; status 0 if all is well, 3 if something has died, 4 if no cluster
    is there.
    """
    cluster = LocalCluster(state)
    if not cluster.exists:
        click.echo(f"no cluster in {state}")
        sys.exit(_NOT_THERE)
    table = Table("process", "state", "process id")
    pids = {name: cluster.processes.pid(name) for name in cluster.processes.names()}
    for name, pid in pids.items():
        table.add_row(name, "died" if pid is None else "runs", str(pid or ""))
    Console().print(table)
    click.echo(f"logs in {cluster.processes.logs}")
    if None in pids.values():
        sys.exit(_NOT_WHOLE)
    click.echo(cluster.kubectl("get", "nodes"))


@main.command()
@_state_option
def kubeconfig(state: Path) -> None:
    """Print the path of the administrator's kubeconfig."""
    cluster = LocalCluster(state)
    if not cluster.exists:
        raise StateError(f"no cluster in {state}; start one with `python -m localcluster up`")
    click.echo(cluster.admin_kubeconfig)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--keep-going", is_flag=True, help="Say what cannot be had, and go on to the next.")
def parts(names: tuple[str, ...], *, keep_going: bool) -> None:
    """Get the programs, all or the named ones, and print where they are."""
    settings, progress = default_settings(), progress_on(sys.stderr)
    wanted = names or tuple(catalogue(architecture()))
    found: dict[str, Path] = {}
    for some in [[name] for name in wanted] if keep_going else [list(wanted)]:
        try:
            found |= ensure(some, settings=settings, progress=progress)
        except PartsUnavailable as error:
            if not keep_going:
                raise
            click.echo(f"{error}\n", err=True)
    for name, path in found.items():
        click.echo(f"{name}\t{path}")


@main.command()
def manifests() -> None:
    """Render the chart into the files beside it, and name those that changed."""
    found = ensure([rendering.PART], settings=default_settings(), progress=progress_on(sys.stderr))
    for path in rendering.write_files(helm=found[rendering.PART]):
        click.echo(path)


@main.command(hidden=True)
@click.option("--state", type=click.Path(path_type=Path), required=True)
def guard(state: Path) -> None:
    """Take the cluster down when standard input ends."""
    wait_for_owner_end()
    LocalCluster(state).down()


def _wait_for_interrupt(cluster: LocalCluster) -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo("taking the cluster down")
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
