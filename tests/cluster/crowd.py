"""Two simulated nodes whose GPUs are all in use, and pods of three priorities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Object, gpu_pod, serves_gpus
from tests.cluster.watching import shown, wait_for_no_pods, wait_for_nodes

NODES = ("left", "right")
#: GPUs and CPUs of each node.
GPUS, CPUS = 8, 64
PODS = "/api/v1/namespaces/default/pods"
PRIORITIES = {"low": 10, "middle": 500, "high": 1000}


class Site:
    """Two nodes, and what is asked of them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.api = stack.cluster.api

    def create(self, pod: Object, priority: str, *, on: str = "", cpu: int = 1) -> Object:
        """Create a pod of a priority, for a node of choice."""
        pod["spec"] |= {"priorityClassName": priority, "terminationGracePeriodSeconds": 0}
        if on:
            pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": on}
        resources = pod["spec"]["containers"][0].setdefault("resources", {})
        resources.setdefault("limits", {})["cpu"] = cpu
        pod["metadata"]["labels"] = {"priority": priority}
        return self.api.create(PODS, pod)

    def fill(self, priorities: Mapping[str, int], *nodes: str, cpu: int = 1) -> list[str]:
        """Let so many pods of each priority hold a GPU each on every one of the nodes."""
        names = [
            f"{priority}-{node}-{number}"
            for node in nodes
            for priority, count in priorities.items()
            for number in range(count)
        ]
        for name in names:
            priority, node, _ = name.split("-")
            self.create(gpu_pod(name), priority, on=node, cpu=cpu)
        for name in names:
            self.when(name, lambda pod: pod["status"].get("phase") == "Running")
        return names

    def when(self, name: str, predicate: Callable[[Object], bool]) -> Object:
        """Wait for a pod to satisfy a predicate, and return it."""
        return self.stack.cluster.wait_for(f"{PODS}/{name}", predicate, timeout=30)

    def there(self) -> set[str]:
        """The names of all pods that are not being deleted."""
        items = self.api.get(PODS)["items"]
        return {i["metadata"]["name"] for i in items if not i["metadata"].get("deletionTimestamp")}

    def told(self, reason: str) -> set[str]:
        """The names of the pods of which something was reported for this reason."""
        events = self.api.get("/api/v1/namespaces/default/events", fieldSelector=f"reason={reason}")
        return {event["involvedObject"]["name"] for event in events["items"]}

    def count(self, metric: str) -> float:
        """The value of one of the extender's counters; its labels are a part of the name."""
        return shown(self.stack.side_url("extender"), metric)

    @contextmanager
    def counted(self, metric: str) -> Iterator[None]:
        """Do not go on before a counter has risen."""
        before = self.count(metric)
        yield
        until(lambda: self.count(metric) > before, timeout=30, what=metric)

    @contextmanager
    def considered(self, outcome: str) -> Iterator[None]:
        """Do not go on before the extender has come to this end about a pod."""
        with self.counted(f'preemptions_total{{outcome="{outcome}"}}'):
            yield

    def clear(self) -> None:
        """Delete all pods, budgets and Events."""
        self.stack.cluster.kubectl("delete", "pdb,events", "--all", "-n", "default")
        for pod in self.api.get(PODS)["items"]:
            if pod["metadata"].get("finalizers"):
                self.release(pod["metadata"]["name"])
        self.stack.cluster.kubectl(
            *("delete", "pods", "--all", "-n", "default", "--force", "--grace-period=0")
        )
        until(lambda: not self.api.get(PODS)["items"], timeout=60, what="no pods")
        wait_for_no_pods(self.stack)

    def release(self, name: str) -> None:
        """Let a pod go that is kept by a finalizer."""
        self.api.patch(f"{PODS}/{name}", {"metadata": {"finalizers": None}})


@contextmanager
def crowded(folder: Path) -> Iterator[Stack]:
    """Run a cluster of two simulated nodes with eight H100 each, and three PriorityClasses."""
    with LocalCluster(folder / "cluster") as cluster:
        stack = Stack(cluster)
        stack.install()
        for name, value in PRIORITIES.items():
            path = "/apis/scheduling.k8s.io/v1/priorityclasses"
            cluster.api.create(path, {"metadata": {"name": name}, "value": value})
        cluster.create_simulated_nodes(NODES)
        for node in NODES:
            install(folder / node, "8x-h100", node=node)
            stack.start_agent(node, folder / node)
        for node in NODES:
            cluster.wait_for(f"/api/v1/nodes/{node}", serves_gpus, timeout=60)
        wait_for_nodes(stack, len(NODES))
        cluster.wait_for("/api/v1/namespaces/default/serviceaccounts/default", bool)
        yield stack
