"""Sets the stage, plays the chapters, shows the fleet, and cleans up."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console

from localcluster.cluster import LocalCluster
from localcluster.demo import real, simulated
from localcluster.demo.narrator import Narrator
from localcluster.demo.stage import Stage
from localcluster.parts.progress import progress_on
from localcluster.settings import default_settings
from localcluster.stack import Stack


@click.command()
@click.option(
    "--state", type=click.Path(path_type=Path), help="Folder of the cluster; default as usual."
)
@click.option(
    "--keep/--no-keep",
    default=None,
    help="Leave the cluster up at the end until Ctrl-C; default: on a terminal.",
)
def main(state: Path | None, keep: bool | None) -> None:
    """Show gpudetour on a real control plane; exit code 0 if every step came out as told."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    as_root = os.geteuid() == 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cluster = LocalCluster(state, node=as_root, progress=progress_on(sys.stdout))
    tier = "control plane and a real node" if as_root else "control plane"
    console.print(f"A real Kubernetes {tier} comes up on this machine; this takes some seconds ...")
    try:
        with cluster:
            narrator = Narrator(console, environment=_environment(cluster))
            stage = Stage(narrator=narrator, cluster=cluster, stack=Stack(cluster))
            _play(stage, as_root=as_root)
            if sys.stdout.isatty() if keep is None else keep:
                _leave_up(console, cluster)
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything that the demo started is gone.")
        sys.exit(130)
    sys.exit(1 if narrator.failures else 0)


def _play(stage: Stage, *, as_root: bool) -> None:
    simulated.the_complaint(stage)
    simulated.the_install(stage)
    simulated.one_gpu_each(stage)
    if as_root:
        real.a_plugin_dies(stage)
        real.the_other_path(stage)
    else:
        stage.narrator.say(
            "Left out: the real node, for containerd and kubelet need root. As root, `make demo` "
            "shows it too."
        )
    simulated.a_fleet(stage)
    _finale(stage)


def _finale(stage: Stage) -> None:
    tell = stage.narrator
    tell.chapter("Who holds which GPU")
    tell.run("gpudetour nodes")
    tell.run("gpudetour gpus")
    console = tell.console
    console.print()
    if tell.failures:
        console.print(f"[bold red]{len(tell.failures)} steps did not come out as told:")
        for failure in tell.failures:
            console.print(f"  [red]✗ {failure}")
    else:
        console.print("[bold green]Every step came out as told.")


def _leave_up(console: Console, cluster: LocalCluster) -> None:
    console.print("\nThe cluster stays up until Ctrl-C. In another terminal:")
    console.print(f"  export KUBECONFIG={cluster.admin_kubeconfig}", style="bold cyan")
    console.print("  kubectl get pods -o wide; gpudetour gpus", style="bold cyan")
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("\nTaking the cluster down.")


def _environment(cluster: LocalCluster) -> dict[str, str]:
    """What commands on the screen run with: our kubectl and gpudetour first, the demo's cluster."""
    inherited: Mapping[str, str] = default_settings().environment
    folders = [str(cluster.program("kubectl").parent), str(Path(sys.executable).parent)]
    return {
        **inherited,
        "PATH": os.pathsep.join([*folders, inherited.get("PATH", os.defpath)]),
        "KUBECONFIG": str(cluster.admin_kubeconfig),
        "KUBECACHEDIR": str(cluster.state / "kubectl"),
        "COLUMNS": "200",
    }


if __name__ == "__main__":
    main()
