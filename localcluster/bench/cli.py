"""How long people wait for `gpudetour`: on a small cluster, and on 1,000 nodes with 8,000 GPU pods.

Every command is a process of its own, from its start to its end, its output in a pipe; kubectl
reads the same objects in the same rounds, so that both meet the same machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE, GPU_SELECTOR
from gpus.model import GPU_RESOURCE
from gpus.model import Path as GpuPath
from kube.timestamps import micro_time
from localcluster.api import Object
from localcluster.bench.bulk import Call, send_all
from localcluster.bench.cli_figures import LARGE, SMALL, START, CliSeen
from localcluster.bench.fleet import BATCH, GPUS, NODES, PODS, holder, node, node_names, pod
from localcluster.bench.site import OPTIONS
from localcluster.cluster import LocalCluster
from localcluster.parts.progress import Progress

_SYSTEM = "gpudetour-system"
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{_SYSTEM}/leases"
_FEW = 8
_WAITING = "waiting"
#: Whatever fails takes no time worth telling.
_PATIENCE = 120.0

_GPUDETOUR: Mapping[str, Sequence[str]] = {
    "nodes": ("nodes",),
    "gpus": ("gpus",),
    "pods -A": ("pods", "-A"),
    "explain pod": ("explain", "pod", _WAITING),
}
_KUBECTL: Mapping[str, Sequence[str]] = {
    "kubectl get nodes": ("get", "nodes"),
    "kubectl get pods -A -l": ("get", "pods", "-A", "-l", GPU_SELECTOR),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CliPlan:
    """How many nodes, of eight GPUs and as many pods each, and how often each command runs."""

    nodes: int
    rounds: int


FULL = CliPlan(nodes=1000, rounds=5)
QUICK = CliPlan(nodes=100, rounds=2)


class CommandFailed(Exception):
    """A command that was to be timed ended with an error; the text is what it said."""


def measure_cli(plan: CliPlan, *, progress: Progress) -> CliSeen:
    """Run everything; raises `CommandFailed`."""
    with (
        progress.task("command line") as tell,
        TemporaryDirectory(prefix="bench-") as folder,
        LocalCluster(Path(folder) / "s", options=OPTIONS) as cluster,
    ):
        cluster.stop_scheduler()
        cluster.processes.stop("kube-controller-manager")
        namespace = Call("POST /api/v1/namespaces", _named("v1", "Namespace", _SYSTEM))
        send_all(
            [namespace, Call(f"POST {PODS}", _asking(_WAITING))],
            kubeconfig=cluster.admin_kubeconfig,
        )
        seconds: dict[tuple[str, str], list[float]] = {}
        for size, names in _sizes(plan.nodes):
            tell(f"{len(names)} nodes and {GPUS * len(names)} pods")
            send_all(_objects(names), kubeconfig=cluster.admin_kubeconfig)
            for number in range(plan.rounds):
                tell(f"{size} cluster, round {number + 1}")
                for what, command in _commands(cluster).items():
                    seconds.setdefault((size, what), []).append(_timed(command))
        return CliSeen(nodes=plan.nodes, pods=plan.nodes * GPUS, seconds=seconds)


def _sizes(nodes: int) -> Iterator[tuple[str, Sequence[str]]]:
    names = node_names(nodes)
    yield SMALL, names[:_FEW]
    yield LARGE, names[_FEW:]


def _commands(cluster: LocalCluster) -> Mapping[str, Sequence[str]]:
    kubeconfig = f"--kubeconfig={cluster.admin_kubeconfig}"
    ours = [str(Path(sys.executable).with_name("gpudetour")), kubeconfig]
    theirs = [str(cluster.program("kubectl")), kubeconfig]
    return {
        START: [*ours, "version", "--client"],
        **{what: [*ours, *arguments] for what, arguments in _GPUDETOUR.items()},
        **{what: [*theirs, *arguments] for what, arguments in _KUBECTL.items()},
    }


def _objects(names: Sequence[str]) -> Iterator[Call]:
    """Nodes, their agents' heartbeats, and for each GPU a pod that holds it."""
    for name in names:
        yield Call(f"POST {NODES}", node(name, path=GpuPath.ANNOTATION))
        yield Call(f"POST {_LEASES}", _lease(name))
        for index in range(GPUS):
            held = holder(f"{name}-{index}", name, [index], path=GpuPath.ANNOTATION)
            yield Call(f"POST {PODS}", held)


def _asking(name: str) -> Object:
    asking = pod(name, batch=_WAITING)
    asking["metadata"]["labels"] = {BATCH: _WAITING, GPU_LABEL: GPU_LABEL_VALUE}
    asking["spec"]["containers"][0]["resources"] = {"limits": {GPU_RESOURCE: 1}}
    return asking


def _lease(name: str) -> Object:
    lease = _named("coordination.k8s.io/v1", "Lease", name)
    now = micro_time(datetime.now(UTC))
    return lease | {"spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}}


def _named(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def _timed(command: Sequence[str]) -> float:
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    took = time.monotonic() - began
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return took
