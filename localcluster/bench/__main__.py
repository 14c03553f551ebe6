"""`python -m localcluster.bench`: reads options, runs the experiments, prints the figures."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from localcluster.api import ApiError
from localcluster.bench.admission import FULL, QUICK, AdmissionPlan, measure_admission
from localcluster.bench.admission_load import NotAdmitted
from localcluster.bench.admission_report import tell_admission
from localcluster.bench.agent import FULL as FULL_AGENT
from localcluster.bench.agent import QUICK as QUICK_AGENT
from localcluster.bench.agent import AgentPlan, can_run_a_node, measure_agent
from localcluster.bench.agent_figures import tell_agent
from localcluster.bench.arrivals import Stalled
from localcluster.bench.bulk import BulkError
from localcluster.bench.cli import FULL as FULL_CLI
from localcluster.bench.cli import QUICK as QUICK_CLI
from localcluster.bench.cli import CliPlan, CommandFailed, measure_cli
from localcluster.bench.cli_figures import tell_cli
from localcluster.bench.experiment import Plan, run
from localcluster.bench.growth import FilterRefused
from localcluster.bench.machine import describe_machine
from localcluster.bench.outcome import Results
from localcluster.bench.page import FULL as FULL_PAGE
from localcluster.bench.page import QUICK as QUICK_PAGE
from localcluster.bench.page import PagePlan, can_look, measure_page
from localcluster.bench.page_figures import tell_page
from localcluster.bench.report import show, write
from localcluster.bench.restart import NotTold
from localcluster.bench.scrape import measure_scrapes
from localcluster.bench.scrape_report import tell_scrapes
from localcluster.bench.site import WrongPlacement
from localcluster.bench.systems import System
from localcluster.chromium import BrowserError
from localcluster.controlplane import PARTS
from localcluster.node.machine import NodeError
from localcluster.nvml.build import build_library
from localcluster.parts.obtain import PartsUnavailable, ensure
from localcluster.parts.progress import Progress, progress_on
from localcluster.processes import ProcessDied
from localcluster.settings import default_settings
from localcluster.stack import StackError
from localcluster.toolchain import ToolchainError
from localcluster.waiting import WaitedTooLong
from nodeagent.podresources.client import PodResourcesError
from service import logs

_FAULTS = (
    ApiError,
    BrowserError,
    BulkError,
    CommandFailed,
    FilterRefused,
    NotAdmitted,
    NodeError,
    NotTold,
    OSError,
    PartsUnavailable,
    PodResourcesError,
    ProcessDied,
    StackError,
    Stalled,
    ToolchainError,
    WaitedTooLong,
    WrongPlacement,
)
_NODES = (100, 1000, 5000)
_QUICK_NODES = (100,)
_ROUNDS = 3
_PODS = 600
_LARGE = 2500
_PODS_ON_LARGE = 400
"""Where a pod takes tens of milliseconds, fewer show as much."""
_INTERRUPTED = 130
_WEBHOOK, _AGENT, _CLI, _SCRAPE, _PAGE = "webhook", "agent", "cli", "scrape", "page"
_BESIDE = (_WEBHOOK, _AGENT, _CLI, _SCRAPE, _PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beside:
    """What is measured beside scheduling, and how much of it; None: not at all."""

    admission: AdmissionPlan | None
    agent: AgentPlan | None
    cli: CliPlan | None
    scrapes: bool
    page: PagePlan | None


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
    help=f"Pods of one GPU in a batch; default: {_PODS}, {_PODS_ON_LARGE} on large clusters.",
)
@click.option(
    "--only",
    type=click.Choice([*(system.name.lower() for system in System), *_BESIDE]),
    multiple=True,
    help="These systems, or what else is measured, only; may be given several times.",
)
@click.option("--rounds", type=click.IntRange(1), default=_ROUNDS, help="Batches of each system.")
@click.option("--quick", is_flag=True, help="A first impression: 100 nodes, one round.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench.json"),
    help="Where everything goes as JSON; the plot goes beside it.",
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
    """Measure gpudetour beside kube-scheduler alone and a stub, in one run on this machine."""
    # As Ctrl-C: what was started is taken down on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sizes = sorted(set(_QUICK_NODES if quick else nodes))
    plans = [
        Plan(
            nodes=size,
            pods=_batch(size, pods),
            systems=[system for system in System if not only or system.name.lower() in only],
            rounds=1 if quick else rounds,
            growth=size == sizes[-1],
            extras=size == sizes[0],
        )
        for size in sizes
        if not only or set(only) - set(_BESIDE)
    ]
    wanted = set(only or _BESIDE)
    beside = _Beside(
        admission=(QUICK if quick else FULL) if _WEBHOOK in wanted else None,
        agent=(QUICK_AGENT if quick else FULL_AGENT) if _AGENT in wanted else None,
        cli=(QUICK_CLI if quick else FULL_CLI) if _CLI in wanted else None,
        scrapes=_SCRAPE in wanted,
        # Who asks for it is told what is missing; among all others it is left out.
        page=(QUICK_PAGE if quick else FULL_PAGE)
        if _PAGE in only or (not only and can_look())
        else None,
    )
    try:
        _measure(plans, beside, output=output)
    except _FAULTS as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nInterrupted; everything that the benchmark started is gone.", err=True)
        sys.exit(_INTERRUPTED)


def _batch(nodes: int, pods: int | None) -> int:
    free = 8 * nodes
    wanted = pods or min(_PODS if nodes < _LARGE else _PODS_ON_LARGE, free)
    if wanted > free:
        raise click.UsageError(f"{nodes} nodes have {free} GPUs, less than {wanted} pods need")
    return wanted


def _measure(plans: Sequence[Plan], beside: _Beside, *, output: Path) -> None:
    progress = progress_on(sys.stderr)
    settings = default_settings()
    parts = ensure(PARTS, settings=settings, progress=progress)
    build_library(settings, progress=progress)
    machine = describe_machine(parts["kube-apiserver"])
    told = {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "rounds": max((plan.rounds for plan in plans), default=0),
    }
    started, results = time.monotonic(), Results()
    for plan in plans:
        results += run(plan, progress=progress)
        # What is measured outlives an interruption of the rest.
        write(results, told, output=output)
    if plans:
        show(results, output=output)
    _measure_beside(beside, progress, output=output)
    print(
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_average']} before,"
        f" Kubernetes {machine['kubernetes']}, Python {machine['python']};"
        f" {time.monotonic() - started:.0f} s"
    )


def _measure_beside(beside: _Beside, progress: Progress, *, output: Path) -> None:
    if beside.admission is not None:
        tell_admission(measure_admission(beside.admission, progress=progress), output=output)
    if beside.agent is not None:
        seen = measure_agent(beside.agent, real_node=can_run_a_node(), progress=progress)
        tell_agent(seen, output=output)
    if beside.cli is not None:
        tell_cli(measure_cli(beside.cli, progress=progress), output=output)
    if beside.scrapes:
        # Else each request would be a line: these run in this process.
        logs.configure(level="warning", json=False)
        tell_scrapes(measure_scrapes(), output=output)
    if beside.page is not None:
        tell_page(measure_page(beside.page, progress=progress), output=output)


if __name__ == "__main__":
    main()
