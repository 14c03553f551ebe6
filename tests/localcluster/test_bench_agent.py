"""The part of the benchmark that is about the node agent: its arithmetic, and small runs of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from localcluster.bench.agent import AgentPlan, measure_agent
from localcluster.bench.agent_figures import AgentSeen, Quiet, goals_of, tell_agent, writes_in
from localcluster.parts.progress import SilentProgress

MEBI = 1 << 20
GOOD = AgentSeen(
    advertised_by="kubelet",
    starts=[1.0, 3.0],
    quiet=Quiet(seconds=60.0, cpu=0.6, writes={"leases": 6}),
    losses={"NVML calls fail": [0.5, 5.0]},
    inventories={"healthy": 8192, "lost": 8192},
    memory=100 * MEBI,
    client=30 * MEBI,
)


def unmet(seen: AgentSeen) -> list[str]:
    return [goal.text for goal in goals_of(seen) if not goal.met]


def test_what_is_just_at_its_limit_is_met() -> None:
    assert unmet(GOOD) == []
    assert len(list(goals_of(GOOD))) == 7


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (replace(GOOD, memory=101 * MEBI), "memory"),
        (replace(GOOD, quiet=Quiet(seconds=60.0, cpu=0.7, writes={})), "CPU"),
        (replace(GOOD, quiet=Quiet(seconds=60.0, cpu=0, writes={"nodes": 1})), "writes"),
        (replace(GOOD, inventories={"healthy": 1, "lost": 8193}), "inventory"),
        (replace(GOOD, losses={"a": [5.1, 0.1], "b": [1.0]}), "failure"),
        (replace(GOOD, starts=[1.0, 3.1, 1.0]), "start"),
    ],
)
def test_the_worst_of_each_is_held_against_the_limit(seen: AgentSeen, text: str) -> None:
    (goal,) = unmet(seen)

    assert text in goal


def audit_line(user: str, resource: str, subresource: str = "", stage: str = "") -> str:
    reference = {"resource": resource} | ({"subresource": subresource} if subresource else {})
    event = {
        "stage": stage or "ResponseComplete",
        "user": {"username": user},
        "objectRef": reference,
    }
    return json.dumps(event) + "\n"


def test_writes_are_counted_once_by_user_and_only_from_whole_lines() -> None:
    lines = [
        audit_line("agent", "leases", stage="RequestReceived"),
        audit_line("agent", "leases"),
        audit_line("agent", "nodes", "status"),
        audit_line("somebody", "nodes"),
        audit_line("agent", "nodes")[:-20],
    ]

    assert writes_in("".join(lines), "agent") == {"leases": 1, "nodes/status": 1}


def test_what_is_told_names_goals_and_the_cost_of_the_client(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_agent(replace(GOOD, starts=[4.0]), output=tmp_path / "new" / "bench.json")

    told = capsys.readouterr().out
    assert "6 of 7 met" in told
    assert "importing that alone takes 30 MiB" in told
    written = json.loads((tmp_path / "new" / "bench-agent.json").read_text())
    assert [goal["met"] for goal in written["goals"]] == [True] * 6 + [False]
    assert written["losses"] == {"NVML calls fail": [0.5, 5.0]}


@pytest.mark.controlplane
@pytest.mark.usefixtures("control_plane_parts")
def test_a_short_run_without_a_kubelet_measures_everything(tmp_path: Path) -> None:
    # Leases are renewed every 11 s at the latest, and a busy machine may take its time for it.
    plan = AgentPlan(starts=2, losses=1, quiet=18.0)

    seen = measure_agent(plan, real_node=False, progress=SilentProgress())

    assert len(seen.starts) == 2
    assert all(0.1 < took < 60 for took in seen.starts)
    assert seen.quiet.seconds >= 18
    assert seen.quiet.writes.keys() == {"leases"}
    assert 0 < seen.quiet.cpu < seen.quiet.seconds
    assert [len(times) for times in seen.losses.values()] == [1] * 4
    assert 500 < seen.inventories["healthy"] <= 8192
    assert 500 < seen.inventories["lost"] <= 8192
    assert 20 * MEBI < seen.client < seen.memory < 200 * MEBI
    tell_agent(seen, output=tmp_path / "bench.json")
    assert len(json.loads((tmp_path / "bench-agent.json").read_text())["goals"]) == 10


@pytest.mark.node
@pytest.mark.usefixtures("machine_alone")
def test_a_quick_run_watches_kubelet_where_it_can(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = ["-m", "localcluster.bench", "--only=agent", "--quick", f"--output={output}"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "resident memory of the agent" in done.stdout
    written = json.loads((tmp_path / "bench-agent.json").read_text())
    assert written["advertised_by"] == "kubelet"
    assert set(written["quiet"]["writes"]) == {"leases"}
    assert not output.exists()
