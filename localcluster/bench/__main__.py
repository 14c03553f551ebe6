"""`python -m localcluster.bench`: reads options, runs the experiments, prints the figures."""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from localcluster.api import ApiError
from localcluster.bench.arrivals import Stalled
from localcluster.bench.experiment import Load, Outcome, WrongPlacement, run
from localcluster.bench.machine import describe_machine
from localcluster.bench.systems import System
from localcluster.bench.table import as_json, rendered, rows
from localcluster.controlplane import PARTS
from localcluster.files import write_atomically
from localcluster.nvml.build import build_library
from localcluster.parts.obtain import PartsUnavailable, ensure
from localcluster.parts.progress import Progress, progress_on
from localcluster.processes import ProcessDied
from localcluster.settings import default_settings
from localcluster.stack import StackError
from localcluster.toolchain import ToolchainError
from localcluster.waiting import WaitedTooLong

_FAULTS = (
    ApiError,
    OSError,
    PartsUnavailable,
    ProcessDied,
    StackError,
    Stalled,
    ToolchainError,
    WaitedTooLong,
    WrongPlacement,
)
_NODES = (100, 1000)
_QUICK = Load(nodes=100, pods=200)
_INTERRUPTED = 130


@click.command(context_settings={"show_default": True})
@click.option(
    "--nodes",
    type=click.IntRange(1),
    multiple=True,
    default=_NODES,
    help="Simulated nodes with eight GPUs each; may be given several times.",
)
@click.option(
    "--pods",
    type=click.IntRange(2),
    default=None,
    help="Pods of one GPU in each experiment; default: six for each node, at most 1,500.",
)
@click.option(
    "--only",
    type=click.Choice([system.name.lower() for system in System]),
    multiple=True,
    help="Compare these systems only; may be given several times.",
)
@click.option("--rounds", type=click.IntRange(1), default=1, help="Repetitions; medians are told.")
@click.option("--quick", is_flag=True, help="A first impression: 100 nodes, 200 pods.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench.json"),
    help="Where the same rows go as JSON.",
)
def main(
    nodes: tuple[int, ...],
    pods: int | None,
    only: tuple[str, ...],
    rounds: int,
    *,
    quick: bool,
    output: Path,
) -> None:
    """Measure gpudetour beside kube-scheduler alone, in one run on this machine."""
    # As Ctrl-C: what was started is taken down on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    loads = [_QUICK] if quick else [_load(count, pods) for count in sorted(set(nodes))]
    try:
        systems = [one for one in System if not only or one.name.lower() in only]
        _measure(loads, systems=systems, rounds=rounds, output=output)
    except _FAULTS as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nInterrupted; everything that the benchmark started is gone.", err=True)
        sys.exit(_INTERRUPTED)


def _load(nodes: int, pods: int | None) -> Load:
    wanted = min(6 * nodes, 1500) if pods is None else pods
    if wanted > 8 * nodes:
        raise click.UsageError(f"{nodes} nodes have {8 * nodes} GPUs, less than {wanted} pods need")
    return Load(nodes=nodes, pods=wanted)


def _measure(loads: list[Load], *, systems: list[System], rounds: int, output: Path) -> None:
    progress = progress_on(sys.stderr)
    settings = default_settings()
    parts = ensure(PARTS, settings=settings, progress=progress)
    build_library(settings, progress=progress)
    machine = describe_machine(parts["kube-apiserver"])
    started, begun = time.monotonic(), datetime.now(UTC)
    found = rows(_outcomes(loads, systems=systems, rounds=rounds, progress=progress))
    document = {
        "begun": begun.isoformat(timespec="seconds"),
        "machine": machine,
        "rounds": rounds,
        "rows": as_json(found),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, json.dumps(document, indent=2).encode())
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(rendered(found, title="gpudetour beside kube-scheduler alone"))
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, Kubernetes {machine['kubernetes']}, "
        f"Python {machine['python']}; {time.monotonic() - started:.0f} s; also in {output}\n"
        "Scheduled: pods from the first Binding to the last. Writes and CPU: from the start of the "
        "scheduler.\nWhole clusters share this machine, so compare within one table only."
    )


def _outcomes(
    loads: list[Load], *, systems: list[System], rounds: int, progress: Progress
) -> list[Outcome]:
    outcomes = []
    for load in loads:
        for number in range(rounds):
            for system in systems:
                # One is enough, and it needs no cluster of any size.
                with_agent = load is loads[0] and number == 0 and system is System.ANNOTATION
                outcomes.append(run(system, load, with_agent=with_agent, progress=progress))
    return outcomes


if __name__ == "__main__":
    main()
