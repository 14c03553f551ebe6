"""The benchmark itself, small: real control planes, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.bench.experiment import Plan, run
from localcluster.bench.outcome import State
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
def test_ours_and_the_stub_are_seen_binding_every_pod_on_empty_and_on_full_nodes() -> None:
    plan = Plan(
        nodes=20,
        pods=12,
        systems=[System.STUB, System.ANNOTATION],
        growth=True,
        extras=True,
    )

    found = run(plan, progress=SilentProgress())

    stub, ours = (
        {outcome.load.state: outcome for outcome in found.outcomes if outcome.system is system}
        for system in plan.systems
    )
    for state in (State.EMPTY, State.FULL):
        assert stub[state].pods_per_second > 0
        assert stub[state].writes_per_pod["pods/binding"] == 1
        assert {"etcd", "kube-apiserver", "kube-scheduler", "stub"} <= set(stub[state].memory)
        assert ours[state].refused_share == 0
        assert 0 < ours[state].loop < 10
        writes = ours[state].writes_per_pod
        assert (writes["pods/binding"], writes["configmaps"]) == (1, 1)
        assert all(ours[state].latencies[what, 0.5] > 0 for what in ("filter", "bind", "webhook"))
        assert ours[state].cpu_per_pod["extender"] >= 0
    (rebuild,) = found.rebuilds
    assert rebuild.pods == 32
    assert 0 < rebuild.ledger < rebuild.restart
    (growth,) = found.growths
    assert list(growth.ours) == list(growth.nowhere) == list(growth.stub) == [10, 20]
    assert growth.api_calls == {}
    assert found.agent_memory is not None


@pytest.mark.usefixtures("control_plane_parts")
def test_a_run_prints_the_tables_and_writes_document_and_plot(tmp_path: Path) -> None:
    output = tmp_path / "out" / "bench.json"
    done = subprocess.run(
        bench("--nodes=10", "--pods=8", "--rounds=1", "--only=plugin", "--output", output),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Goals:" in done.stdout
    written = json.loads(output.read_text())
    assert {row["system"] for row in written["rows"]} == {"plugin path"}
    assert (tmp_path / "out" / "bench-growth.svg").read_text().startswith("<?xml")


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
