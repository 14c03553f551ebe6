"""The benchmark itself, small: real control planes, real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.bench.experiment import Load, run
from localcluster.bench.systems import System
from localcluster.parts.progress import SilentProgress
from localcluster.processtable import command_line, processes
from localcluster.waiting import until

pytestmark = pytest.mark.controlplane


def bench(*options: str | Path) -> list[str]:
    return [sys.executable, "-m", "localcluster.bench", *map(str, options)]


def started_below(folder: Path) -> set[str]:
    """Modules and programs that run with a path below a folder in their command line."""
    lines = (command_line(process.pid) for process in processes())
    return {
        line[line.index("-m") + 1] if "-m" in line else Path(line[0]).name
        for line in lines
        if any(str(folder) in argument and "bench.json" not in argument for argument in line)
    }


@pytest.mark.usefixtures("control_plane_parts")
def test_an_experiment_sees_every_pod_bound_and_what_it_cost() -> None:
    load = Load(nodes=3, pods=12)

    found = run(System.ANNOTATION, load, with_agent=True, progress=SilentProgress())

    assert found.pods_per_second > 0
    assert 0 < found.loop < 10
    assert found.refused_share == 0
    assert (found.writes_per_pod["pods/binding"], found.writes_per_pod["configmaps"]) == (1, 1)
    assert {what for what, _ in found.latencies} >= {"filter", "bind", "webhook"}
    assert all(found.latencies[what, 0.5] > 0 for what in ("filter", "bind", "webhook"))
    assert {"etcd", "kube-apiserver", "kube-scheduler", "extender", "webhook", "node agent"} <= set(
        found.memory
    )
    assert found.cpu_per_pod["extender"] >= 0


@pytest.mark.usefixtures("control_plane_parts")
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    benchmark = subprocess.Popen(
        bench("--nodes=1", "--pods=2", "--output", output),
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        until(lambda: "extender" in started_below(tmp_path), timeout=120, what="the extender")
        benchmark.send_signal(signal.SIGINT)
        status = benchmark.wait(60)
    finally:
        benchmark.kill()

    assert status == 130
    assert started_below(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_more_pods_than_gpus_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        bench("--nodes=2", "--pods=17", "--output", tmp_path / "bench.json"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "2 nodes have 16 GPUs" in done.stderr
