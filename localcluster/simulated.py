"""Simulated nodes: Node objects without a machine.

Two kinds. KWOK's send heartbeats and run pods, as far as the API shows; bare ones only are there
and ready, which is all that scheduling at scale needs. What runs on them, and with which GPUs, is
the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from localcluster.api import ApiClient, Object
from localcluster.processes import Processes
from localcluster.waiting import until

PART = "kwok"
"""The program that KWOK's nodes need."""

ANNOTATION = "kwok.x-k8s.io/node"
"""Marks the nodes that KWOK manages; its value is `simulated`."""

_DEFAULT_CAPACITY: Mapping[str, str] = MappingProxyType(
    {"cpu": "64", "memory": "512Gi", "pods": "110"}
)

_NODE_INFO: Mapping[str, str] = MappingProxyType(
    {
        "architecture": "amd64",
        "bootID": "",
        "containerRuntimeVersion": "simulated://0",
        "kernelVersion": "simulated",
        "kubeProxyVersion": "",
        "kubeletVersion": "simulated",
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "simulated",
        "systemUUID": "",
    }
)
_NODES = "/api/v1/nodes"
_LEASE_SECONDS = 40
_PARALLEL = 8
_STAGES = Path(__file__).with_name("stages.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTemplate:
    """What all nodes of one call have in common; `capacity` holds resource names and quantities."""

    capacity: Mapping[str, str] = field(default_factory=lambda: _DEFAULT_CAPACITY)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class Simulation:
    """Makes simulated nodes in one cluster."""

    def __init__(self, api: ApiClient, *, processes: Processes) -> None:
        self._api = api
        self._processes = processes

    def run_kwok(self, program: Path, *, kubeconfig: Path, work_folder: Path) -> None:
        """Start KWOK unless it runs; from then on it manages the nodes that carry `ANNOTATION`."""
        if self._processes.alive(PART):
            return
        work_folder.mkdir(parents=True, exist_ok=True)
        self._processes.start(
            PART,
            [
                program,
                f"--kubeconfig={kubeconfig}",
                f"--config={_STAGES}",
                f"--manage-nodes-with-annotation-selector={ANNOTATION}=simulated",
                f"--node-lease-duration-seconds={_LEASE_SECONDS}",
                "--node-ip=192.0.2.1",
            ],
            env={"KWOK_WORKDIR": str(work_folder)},
            grace=0,
        )

    def create_managed(
        self, template: NodeTemplate, names: Iterable[str], *, timeout: float
    ) -> None:
        """Create nodes that KWOK manages, and return when all are ready for pods."""
        wanted = frozenset(names)
        marks = {ANNOTATION: "simulated"}
        self._create_all(_node(name, template, annotations=marks, conditions=[]) for name in wanted)

        def ready() -> bool:
            self._processes.check(PART)
            return wanted <= {_name(n) for n in self._api.get(_NODES)["items"] if _takes_pods(n)}

        until(ready, timeout=timeout, what=f"{len(wanted)} simulated nodes ready")

    def create_bare(self, template: NodeTemplate, names: Iterable[str]) -> None:
        """Create nodes that are ready and send nothing; the node lifecycle controller must not run.

        A pod bound to one stays Pending.
        """
        self._create_all([bare_node(name, template) for name in frozenset(names)])

    def _create_all(self, nodes: Iterable[Object]) -> None:
        def create(node: Object) -> None:
            name = _name(node)
            self._api.create(_NODES, node)
            # Admission (TaintNodesByCondition) gives every new node a not-ready taint.
            self._api.patch(f"{_NODES}/{name}", {"spec": {"taints": None}})

        with ThreadPoolExecutor(_PARALLEL) as pool:
            for outcome in [pool.submit(create, node) for node in sorted(nodes, key=_name)]:
                outcome.result()


def bare_node(name: str, template: NodeTemplate) -> Object:
    """A node that is ready and sends nothing, as it is sent to the API server."""
    ready = {"type": "Ready", "status": "True", "reason": "SimulatedNode"}
    return _node(name, template, annotations={}, conditions=[ready])


def _node(
    name: str,
    template: NodeTemplate,
    *,
    annotations: Mapping[str, str],
    conditions: list[Object],
) -> Object:
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    resources = dict(template.capacity)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**own, **template.labels},
            "annotations": {**annotations, **template.annotations},
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "nodeInfo": dict(_NODE_INFO),
        },
    }


def _name(node: Object) -> str:
    return str(node["metadata"]["name"])


def _takes_pods(node: Object) -> bool:
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in node.get("status", {}).get("conditions") or ()
    )
    return ready and not node["spec"].get("taints")
