"""The agent as it is run, on a real kube-apiserver: what it tells how soon, and what it costs.

Kubelet is played, GPUs are simulated below pynvml. Limits of time are generous, because other
programs use this machine too; what was measured is printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from gpus.annotations import INVENTORY, PATH_CONDITION, decode_inventory
from gpus.model import Health, NodeInventory
from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from localcluster.waiting import until
from tests.fakes.kubelet import FakeKubelet

pytestmark = pytest.mark.controlplane

GPU = "nvidia.com/gpu"
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
EVENTS = "/api/v1/namespaces/default/events"
log = structlog.get_logger()

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Agent:
    """A running agent, and what may be looked at from outside."""

    name: str
    cluster: LocalCluster
    kubelet: FakeKubelet
    machine: Machine
    process: subprocess.Popen[bytes]

    def node(self) -> dict[str, Any]:
        return self.cluster.api.get(f"{NODES}/{self.name}")

    def inventory(self) -> NodeInventory | None:
        text = self.node()["metadata"].get("annotations", {}).get(INVENTORY)
        return decode_inventory(text) if text else None

    def shows(self, health: dict[str, Health]) -> bool:
        """Whether Node and kubelet's list both say this of these GPUs, and healthy of the rest."""
        inventory, client = self.inventory(), self.kubelet.clients.get(GPU)
        if inventory is None or client is None:
            return False
        shown = {gpu.uuid: gpu.health for gpu in inventory.gpus}
        wanted = {uuid: health.get(uuid, Health.HEALTHY) for uuid in self.machine.uuids}
        well = {uuid for uuid, each in wanted.items() if each is Health.HEALTHY}
        return shown == wanted and set(self.kubelet.healthy(GPU)) == well

    def until_shown(self, health: dict[str, Health]) -> float:
        """Wait until it is shown; returns after how many seconds."""
        began = time.monotonic()
        until(lambda: self.shows(health), timeout=30, what=f"{health} on Node and kubelet")
        return time.monotonic() - began

    def condition(self) -> dict[str, Any]:
        conditions = self.node()["status"].get("conditions", [])
        return next((c for c in conditions if c["type"] == PATH_CONDITION), {})

    def renewals(self) -> int:
        """A number that changes whenever the agent renews its Lease."""
        leases = self.cluster.api.get(LEASES, fieldSelector=f"metadata.name={self.name}")["items"]
        return int(leases[0]["metadata"]["resourceVersion"]) if leases else 0

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self, what: str) -> int:
        """Bytes of a line of /proc/PID/status."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


@pytest.fixture
def agent(
    control_plane: LocalCluster, kubelet: FakeKubelet, short_folder: Path, tmp_path: Path
) -> Iterator[Agent]:
    api = control_plane.api
    name = f"{short_folder.name.replace('_', '-')}-process"
    api.create(NODES, {"metadata": {"name": name}})
    machine = install(tmp_path / "root", "8x-h100", node=name)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                *("-m", "nodeagent"),
                *("--node-name", name, "--namespace", "default"),
                *("--kubeconfig", str(control_plane.admin_kubeconfig)),
                *("--driver-root", str(machine.driver_root)),
                *("--kubelet-dir", str(kubelet.root), "--device-plugin-dir", str(kubelet.folder)),
                *("--cdi-dir", str(short_folder / "cdi")),
                *("--side-host", "127.0.0.1", "--side-port", "0", "--hold-down", "3"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Agent(name, control_plane, kubelet, machine, process)
        finally:
            machine.release()
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait(20)
                api.delete(f"{NODES}/{name}")
    assert process.returncode == 0, (tmp_path / "log").read_text()


def _in_turn(
    steps: list[tuple[str, Callable[[], object], dict[str, Health]]], agent: Agent
) -> None:
    for what, happen, health in steps:
        happen()
        log.info("measured", what=what, seconds=round(agent.until_shown(health), 1))


def test_what_happens_to_gpus_reaches_node_and_kubelet_and_passes(agent: Agent) -> None:
    machine = agent.machine
    first, second, third = machine.uuids[:3]
    agent.until_shown({})
    _in_turn(
        [
            ("lost", lambda: machine.lose(first), {first: Health.LOST}),
            ("back", lambda: machine.restore(first), {}),
            ("ECC", lambda: machine.ecc(second, volatile=1), {second: Health.FAULTY}),
            ("reset", lambda: machine.restore(second), {}),
            ("Xid", lambda: machine.xid(third, 63), {third: Health.FAULTY}),
            ("quiet", lambda: None, {}),
            (
                "hanging",
                lambda: machine.hang("nvmlDeviceGetMemoryInfo", uuid=third),
                {third: Health.UNMONITORED},
            ),
            ("answering", machine.release, {}),
        ],
        agent,
    )
    until(lambda: _told(agent, f"GPU 2 ({third}) is healthy again") == 2, timeout=30, what="Events")
    for message in (
        f"GPU 0 ({first}) is lost: nvmlDeviceGet",
        f"GPU 0 ({first}) is healthy again",
        f"GPU 1 ({second}) is faulty: uncorrected ECC errors",
        f"GPU 2 ({third}) is faulty: Xid 63: row remapping",
        f"GPU 2 ({third}) is unmonitored: NVML has not answered since",
    ):
        assert _told(agent, message) == 1, message


def _told(agent: Agent, message: str) -> int:
    """How many times Events say so."""
    events = agent.cluster.api.get(EVENTS)["items"]
    return sum(
        event["count"]
        for event in events
        if event["involvedObject"]["name"] == agent.name and event["message"].startswith(message)
    )


def test_all_gpus_at_once_turn_the_condition(agent: Agent) -> None:
    agent.until_shown({})
    until(lambda: agent.condition().get("status") == "True", timeout=30, what="the condition")
    for uuid in agent.machine.uuids:
        agent.machine.lose(uuid)
    agent.until_shown(dict.fromkeys(agent.machine.uuids, Health.LOST))
    until(lambda: agent.condition().get("status") == "False", timeout=30, what="the condition")
    assert "is lost" in agent.condition()["message"]
    text = agent.node()["metadata"]["annotations"][INVENTORY]
    log.info("measured", what="inventory of eight lost H100", bytes=len(text))
    assert len(text.encode()) <= 8 * 1024


def test_a_quiet_agent_writes_its_lease_only_and_costs_next_to_nothing(agent: Agent) -> None:
    agent.until_shown({})
    until(lambda: agent.condition().get("status") == "True", timeout=30, what="the condition")

    def renewed(times: int) -> None:
        for _ in range(times):
            before = agent.renewals()
            until(lambda b=before: agent.renewals() != b, timeout=60, what="a renewal")  # type: ignore[misc]

    renewed(1)
    version, cpu, began = (
        agent.node()["metadata"]["resourceVersion"],
        agent.cpu_seconds(),
        time.monotonic(),
    )
    renewed(2)
    share = (agent.cpu_seconds() - cpu) / (time.monotonic() - began)
    log.info("measured", what="idle", core=round(share, 4), resident=agent.memory("VmHWM"))
    assert agent.node()["metadata"]["resourceVersion"] == version
    assert agent.memory("VmHWM") <= 100 * 2**20
    assert share <= 0.02, "the goal is 1 % on a machine of its own"


def test_a_driver_that_hangs_stops_neither_heartbeat_nor_plugin(agent: Agent) -> None:
    agent.until_shown({})
    agent.machine.hang("*")
    agent.until_shown(dict.fromkeys(agent.machine.uuids, Health.UNMONITORED))
    before = agent.renewals()
    until(lambda: agent.renewals() != before, timeout=60, what="a heartbeat")
    agent.kubelet.restart()
    agent.kubelet.until(lambda: GPU in agent.kubelet.clients, timeout=30)
    agent.machine.release()
    agent.until_shown({})
