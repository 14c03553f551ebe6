"""All parts of gpudetour as processes on a local cluster, with what a Prometheus would scrape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import urllib3

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from localcluster.ports import free_ports
from localcluster.stack import CERTS, NAMESPACE, WEBHOOK, Stack, answers
from localcluster.waiting import until

#: The job that the shipped scrape configuration names, and the alerts rely on.
JOB = "gpudetour"
API_SERVER = "apiserver"
_LOOPBACK = "127.0.0.1"
#: Seconds between trials of the canary, and for anything to come up.
_CANARY_INTERVAL = "0.5"
_PATIENCE = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One process whose metrics are read, and the labels that a scrape puts on its series."""

    url: str
    labels: Mapping[str, str]


class MonitoredSite:
    """A stack with a few nodes, one agent each, a canary in a hurry, and `certs run`."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self.stack = Stack(cluster)
        self.machines: dict[str, Machine] = {}
        self.targets: dict[str, Target] = {}
        self._folder = folder

    def up(self, nodes: Mapping[str, str]) -> None:
        """Install everything; `nodes` are names with the profile of their GPUs."""
        cluster = self.stack.cluster
        self.stack.install({"--canary-interval": _CANARY_INTERVAL})
        # The canary tells on its Deployment, of which no pod is made here.
        (deployment,) = (d for d in shipped.objects("Deployment") if _name(d) == WEBHOOK)
        deployment["spec"]["replicas"] = 0
        cluster.apply([deployment])
        cluster.create_simulated_nodes(list(nodes))
        for node, profile in nodes.items():
            self.machines[node] = install(self._folder / node, profile, node=node)
            self.start_agent(node)
        self._start_certs()
        for part in ("webhook", "extender"):
            self._target(part, self.stack.side_url(part))
        self.targets[API_SERVER] = Target(
            url=f"{cluster.server}/metrics", labels={"job": API_SERVER, "instance": API_SERVER}
        )
        until(self._all_answer, timeout=_PATIENCE, what="metrics of all parts")

    def start_agent(self, node: str) -> None:
        """Start the agent of a node and wait until it has published."""
        (port,) = free_ports(1)
        options = {"--side-port": str(port)}
        self.stack.start_agent(node, self.machines[node].driver_root, options=options)
        url = f"http://{_LOOPBACK}:{port}"
        self._target("node-agent", url, node=node, name=f"agent-{node}")
        until(lambda: answers(f"{url}/readyz"), timeout=_PATIENCE, what=f"agent of {node}")

    def scrape(self, name: str) -> str | None:
        """What a target says on /metrics; None where it does not answer, as for `up` of 0."""
        if name == API_SERVER:
            return self.stack.cluster.api.text("/metrics")
        with urllib3.PoolManager(retries=False, timeout=10.0) as pool:
            try:
                answer = pool.request("GET", self.targets[name].url)
            except urllib3.exceptions.HTTPError:
                return None
            return answer.data.decode() if answer.status == HTTPStatus.OK else None

    def _all_answer(self) -> bool:
        return all(self.scrape(name) is not None for name in self.targets)

    def _start_certs(self) -> None:
        (port,) = free_ports(1)
        cluster = self.stack.cluster
        changes = {
            "--kubeconfig": str(cluster.service_account_kubeconfig(NAMESPACE, CERTS)),
            "--webhook-host": _LOOPBACK,
            "--extender-host": _LOOPBACK,
            "--every": "1s",
            "--side-host": _LOOPBACK,
            "--side-port": str(port),
        }
        cluster.processes.start("certs", shipped.command_line(CERTS, changes))
        self._target("certs", f"http://{_LOOPBACK}:{port}")

    def _target(self, component: str, url: str, *, node: str = "", name: str = "") -> None:
        labels = {"job": JOB, "component": component, "instance": name or component}
        labels["pod"] = labels["instance"]
        if node:
            labels["node"] = node
        self.targets[name or component] = Target(url=f"{url}/metrics", labels=labels)


def _name(item: Mapping[str, Mapping[str, str]]) -> str:
    return item["metadata"]["name"]
