"""What a node agent costs and how soon it tells: a real one, with eight H100s played below pynvml.

Where this machine can run a real node, GPUs count as advertised when kubelet gives them out; else
when the annotation `inventory` on a simulated node tells of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gpus.annotations import INVENTORY, decode_inventory
from gpus.model import Health, ResourceName
from localcluster.bench.agent_figures import LEASES, AgentSeen, Quiet, writes_in
from localcluster.bench.usage import Usage, usage_of
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.node.machine import NodeError, check_machine, check_rights
from localcluster.node.real import NAME
from localcluster.node.slot import is_taken
from localcluster.nvml.install import install
from localcluster.parts.progress import Progress
from localcluster.processes import ProcessDied
from localcluster.processtable import process
from localcluster.shipped import cluster_objects
from localcluster.stack import AGENT_ACCOUNT, NAMESPACE, KubeletFolders, Stack
from localcluster.waiting import until
from nodeagent.podresources.client import PodResources

_NODE = f"/api/v1/nodes/{NAME}"
_PROCESS = f"agent-{NAME}"
_USER = f"system:serviceaccount:{NAMESPACE}:{AGENT_ACCOUNT}"
_GPU = ResourceName("nvidia.com/gpu")
_PATIENCE = 90.0
_WRITES = ("create", "update", "patch", "delete", "deletecollection")
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "Metadata", "users": [_USER], "verbs": _WRITES}, {"level": "None"}],
}
#: As `kube.connection` does to read a kubeconfig; prints KiB before and after.
_IMPORT = """
import pathlib, re
def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return re.search(r"^VmRSS:\\s+(\\d+) kB$", status, re.MULTILINE)[1]
before = resident()
from kubernetes import client, config
print(before, resident())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlan:
    """How often it is started, how many GPUs fail in each way, how many seconds are quiet.

    At most two fail in each way: one that comes back again and again is held down for longer.
    """

    starts: int
    losses: int
    quiet: float


FULL = AgentPlan(starts=5, losses=2, quiet=120.0)
QUICK = AgentPlan(starts=1, losses=1, quiet=15.0)


def measure_agent(plan: AgentPlan, *, real_node: bool, progress: Progress) -> AgentSeen:
    """Run everything. Raises `NodeError` where a real node is asked for and cannot run."""
    with progress.task("node agent") as tell, TemporaryDirectory(prefix="bench-") as folder:
        policy = Path(folder) / "audit.json"
        policy.write_text(json.dumps(_AUDIT))
        options = ControlPlaneOptions(audit_policy=policy, node_lifecycle=False)
        with LocalCluster(Path(folder) / "s", node=real_node, options=options) as cluster:
            site = _Site(cluster, real_node=real_node)
            tell("starting it")
            starts = [site.start() for _ in range(plan.starts)]
            tell("waiting until it writes nothing but its Lease")
            _settle(site)
            tell(f"{plan.quiet:.0f} s in which nothing changes")
            quiet, inventories = _quiet(plan, site), {"healthy": len(site.inventory().encode())}
            tell("letting GPUs fail")
            losses = _losses(plan, site)
            for uuid in site.machine.uuids:
                site.machine.lose(uuid)
            until(lambda: not site.published(), timeout=_PATIENCE, what="all GPUs told as lost")
            inventories["lost"] = len(site.inventory().encode())
            return AgentSeen(
                advertised_by="kubelet" if real_node else "annotation",
                starts=starts,
                quiet=quiet,
                losses=losses,
                inventories=inventories,
                memory=site.usage().memory,
                client=_import_of_the_client(),
            )


def can_run_a_node() -> bool:
    """Whether this machine can run a real node, now or once that of another run has ended."""
    try:
        check_rights()
        if not is_taken():
            check_machine()
    except NodeError:
        return False
    return True


class _Site:
    """One node with eight GPUs, and its agent."""

    def __init__(self, cluster: LocalCluster, *, real_node: bool) -> None:
        self._cluster = cluster
        self._stack = Stack(cluster)
        self._folders: KubeletFolders | None = None
        self.advertised: Callable[[], frozenset[str]] = self.published
        cluster.stop_scheduler()
        cluster.apply(cluster_objects())
        self.machine = install(cluster.state / "machine", "8x-h100", node=NAME)
        if real_node:
            node = cluster.node
            root = node.pod_resources_socket.parent.parent
            self._folders = KubeletFolders(
                root=root, device_plugins=node.device_plugins, cdi=node.cdi
            )
            kubelet = PodResources(root)
            self.advertised = lambda: kubelet.read().healthy.get(_GPU, frozenset())
        else:
            cluster.create_bare_nodes([NAME])

    def start(self) -> float:
        """Start the agent where no GPU is advertised; returns the seconds until the first one is.

        Returns when all are, and stops the agent that ran before.
        """
        self._stack.stop(_PROCESS)
        self._cluster.api.patch(_NODE, {"metadata": {"annotations": {INVENTORY: None}}})
        until(lambda: not self.advertised(), timeout=_PATIENCE, what="no GPUs before the start")
        self._stack.start_agent(NAME, self.machine.driver_root, kubelet=self._folders)
        until(self._advertises, timeout=_PATIENCE, what="the first GPU")
        took = self._age()
        self.all_back()
        return took

    def all_back(self) -> None:
        """Wait until all GPUs are advertised."""
        everything = frozenset(self.machine.uuids)
        until(lambda: self.advertised() == everything, timeout=_PATIENCE, what="all GPUs")

    def inventory(self) -> str:
        """What the agent published; empty where it did not."""
        annotations = self._cluster.api.get(_NODE)["metadata"].get("annotations") or {}
        return str(annotations.get(INVENTORY, ""))

    def published(self) -> frozenset[str]:
        """UUIDs of the GPUs that are healthy by the annotation."""
        text = self.inventory()
        gpus = decode_inventory(text).gpus if text else ()
        return frozenset(gpu.uuid for gpu in gpus if gpu.health is Health.HEALTHY)

    def usage(self) -> Usage:
        """What the agent uses."""
        return usage_of(self._cluster.processes)[_PROCESS]

    def writes(self) -> Counter[str]:
        """All that agents of this node have written."""
        log = self._cluster.processes.logs / "audit.log"
        return writes_in(log.read_text(), _USER)

    def _advertises(self) -> bool:
        self._cluster.processes.check(_PROCESS)
        return bool(self.advertised())

    def _age(self) -> float:
        """Seconds since the process began (proc(5): ticks after boot)."""
        pid = self._cluster.processes.pid(_PROCESS)
        found = process(pid) if pid is not None else None
        if found is None:
            raise ProcessDied(f"{_PROCESS} ended right after its first GPU was advertised")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - found.started / os.sysconf("SC_CLK_TCK")


def _settle(site: _Site) -> None:
    """Wait until the Lease was renewed twice in a row without another write."""
    since = site.writes()

    def settled() -> bool:
        nonlocal since
        new = site.writes() - since
        if set(new) - {LEASES}:
            since += new
            return False
        return new[LEASES] >= 2

    until(settled, timeout=_PATIENCE, what="an agent that writes its Lease only", interval=0.5)


def _quiet(plan: AgentPlan, site: _Site) -> Quiet:
    writes, cpu, began = site.writes(), site.usage().cpu, time.monotonic()
    over = began + plan.quiet
    until(lambda: time.monotonic() >= over, timeout=2 * plan.quiet, what="the time to be over")
    return Quiet(
        seconds=time.monotonic() - began,
        cpu=site.usage().cpu - cpu,
        writes=dict(site.writes() - writes),
    )


def _losses(plan: AgentPlan, site: _Site) -> dict[str, list[float]]:
    """Seconds until a GPU that fails is not advertised any more, by what happens to it."""
    machine = site.machine
    ways: dict[str, Callable[[str], None]] = {
        "lost": machine.lose,
        "off the bus, Xid 79": machine.fall_off_bus,
        "ECC error without an event": lambda uuid: machine.ecc(uuid, volatile=1),
        "driver hangs": lambda uuid: machine.hang("nvmlDeviceGetMemoryInfo", uuid=uuid),
    }
    gpus = iter(machine.uuids)
    return {
        what: [_lose(site, next(gpus), lose) for _ in range(plan.losses)]
        for what, lose in ways.items()
    }


def _lose(site: _Site, uuid: str, lose: Callable[[str], None]) -> float:
    began = time.monotonic()
    lose(uuid)
    until(lambda: uuid not in site.advertised(), timeout=_PATIENCE, what=f"the loss of {uuid}")
    took = time.monotonic() - began
    site.machine.release()
    site.machine.restore(uuid)
    site.all_back()
    return took


def _import_of_the_client() -> int:
    command = [sys.executable, "-c", _IMPORT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    return (after - before) * 1024
