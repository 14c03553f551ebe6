"""What becomes of GPU pods of low priority when one of high priority comes and no GPU is free.

Two may evict them: kube-scheduler, which does not see GPUs but asks the extender whether any would
come free, and, where that is switched on, the extender itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import urllib3
import yaml

from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.shipped import MANIFESTS
from localcluster.stack import EXTENDER, NAMESPACE, Stack
from localcluster.waiting import until
from tests.cluster.pods import Object, bound, gpu_pod, plain_pod, refused, serves_gpus

pytestmark = pytest.mark.controlplane

NODES = ("left", "right")
#: GPUs and CPUs of each node.
GPUS, CPUS = 8, 64
PODS = "/api/v1/namespaces/default/pods"
PRIORITIES = {"low": 10, "middle": 500, "high": 1000}
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


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
        with urllib3.PoolManager() as pool:
            url = f"{self.stack.side_url('extender')}/metrics"
            text = pool.request("GET", url).data.decode()
        found = re.search(rf"^gpudetour_extender_{re.escape(metric)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

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
        until(lambda: not self.api.get(PODS)["items"], timeout=30, what="no pods")

    def release(self, name: str) -> None:
        """Let a pod go that is kept by a finalizer."""
        self.api.patch(f"{PODS}/{name}", {"metadata": {"finalizers": None}})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """Two simulated nodes with eight H100 each, and three priorities."""
    del control_plane_parts
    folder = tmp_path_factory.mktemp("preemption")
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
        cluster.wait_for("/api/v1/namespaces/default/serviceaccounts/default", bool)
        yield stack


@pytest.fixture
def site(stack: Stack) -> Iterator[Site]:
    """The extender as it is shipped: it evicts nobody."""
    site = Site(stack)
    yield site
    site.clear()


@pytest.fixture(scope="module")
def switched_on(stack: Stack) -> Iterator[None]:
    """The extender may evict, and has the right to."""
    rbac = list(yaml.safe_load_all((MANIFESTS / "preemption" / "rbac.yaml").read_text()))
    stack.cluster.apply(rbac)
    stack.stop("extender")
    stack.start_extender({"--preemption": "evict"})
    yield
    stack.stop("extender")
    stack.start_extender()


@pytest.fixture
def evicting(site: Site, switched_on: None) -> Site:
    """The extender with `--preemption=evict`."""
    del switched_on
    return site


def test_kube_scheduler_evicts_nobody_where_nothing_but_gpus_is_short(site: Site) -> None:
    names = site.fill({"low": GPUS}, *NODES)

    site.create(gpu_pod("important"), "high")

    waiting = site.when("important", lambda pod: refused(pod) != "")
    assert refused(waiting).startswith("0/2 nodes are available: 2 all GPUs in use. ")
    assert refused(waiting).endswith("2 Preemption is not helpful for scheduling.")
    assert site.there() == {*names, "important"}


def test_kube_scheduler_evicts_nobody_for_cpu_where_gpus_would_not_come_free(site: Site) -> None:
    names = site.fill({"high": GPUS}, *NODES)
    for node in NODES:
        site.create(plain_pod(f"hog-{node}"), "low", on=node, cpu=CPUS - GPUS - 2)
        site.when(f"hog-{node}", bound)

    with site.counted('duration_seconds_count{verb="preempt"}'):
        site.create(gpu_pod("important"), "high", cpu=4)

    waiting = site.when("important", lambda pod: refused(pod) != "")
    assert refused(waiting).startswith("0/2 nodes are available: 2 Insufficient cpu. ")
    assert refused(waiting).endswith("preemption: no candidate node for preemption")
    assert "nominatedNodeName" not in waiting["status"]
    assert site.there() == {*names, "hog-left", "hog-right", "important"}


def test_kube_scheduler_makes_room_where_cpu_and_gpu_come_free_together(site: Site) -> None:
    names = site.fill({"high": GPUS}, "left")
    site.create(plain_pod("hog"), "low", on="left", cpu=CPUS - GPUS - 2)
    site.when("hog", bound)
    names += site.fill({"low": GPUS}, "right", cpu=CPUS // GPUS)

    site.create(gpu_pod("important"), "high", cpu=4)

    assert site.when("important", bound)["spec"]["nodeName"] == "right"
    (victim,) = {*names, "hog"} - site.there()
    assert victim.startswith("low-right-")


def test_without_the_setting_there_is_no_right_to_evict(site: Site) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:{EXTENDER}"

    answer = site.stack.cluster.kubectl(
        "auth", "can-i", "create", "pods/eviction", f"--as={account}", check=False
    )

    assert answer.strip() == "no"


def test_one_gpu_costs_one_pod_of_the_lowest_priority(evicting: Site) -> None:
    names = evicting.fill({"middle": GPUS}, "left")
    names += evicting.fill({"low": 1, "middle": GPUS - 1}, "right")

    evicting.create(gpu_pod("important"), "high")

    assert evicting.when("important", bound)["spec"]["nodeName"] == "right"
    assert evicting.there() == {*names, "important"} - {"low-right-0"}
    until(lambda: evicting.told("Preempted") == {"low-right-0"}, timeout=10, what="told")
    until(lambda: evicting.told("Preempting") == {"important"}, timeout=10, what="told")


def test_two_gpus_cost_two_pods_of_one_node(evicting: Site) -> None:
    names = evicting.fill({"low": GPUS}, *NODES)

    evicting.create(gpu_pod("important", gpus=2), "high")

    node = evicting.when("important", bound)["spec"]["nodeName"]
    victims = set(names) - evicting.there()
    assert len(victims) == 2
    assert {name.split("-")[1] for name in victims} == {node}


def test_pods_of_equal_priority_stay(evicting: Site) -> None:
    names = evicting.fill({"high": GPUS}, *NODES)

    with evicting.considered("nobody"):
        evicting.create(gpu_pod("important"), "high")

    assert evicting.there() == {*names, "important"}


def test_nobody_goes_for_a_pod_that_would_not_fit_even_then(evicting: Site) -> None:
    names = evicting.fill({"high": 1, "low": GPUS - 1}, *NODES)

    with evicting.considered("nobody"):
        evicting.create(gpu_pod("important", gpus=GPUS), "high")

    assert evicting.there() == {*names, "important"}


def test_a_disruption_budget_saves_its_pods_and_the_event_says_so(evicting: Site) -> None:
    names = evicting.fill({"low": GPUS}, *NODES)
    protect(evicting, at_least=2 * GPUS, healthy=2 * GPUS)

    with evicting.considered("refused"):
        evicting.create(gpu_pod("important"), "high")

    assert evicting.there() == {*names, "important"}
    until(lambda: evicting.told("PreemptionRefused") == {"important"}, timeout=10, what="told")


def test_nobody_goes_where_a_budget_allows_one_of_the_two_that_it_takes(evicting: Site) -> None:
    names = evicting.fill({"low": GPUS}, *NODES)
    protect(evicting, at_least=2 * GPUS - 1, healthy=2 * GPUS)

    with evicting.considered("refused"):
        evicting.create(gpu_pod("important", gpus=2), "high")

    assert evicting.there() == {*names, "important"}


def test_others_go_where_a_budget_saves_the_first_choice(evicting: Site) -> None:
    names = evicting.fill({"low": 2, "middle": GPUS - 2}, "left")
    names += evicting.fill({"middle": GPUS}, "right")
    protect(evicting, at_least=2, healthy=2)

    evicting.create(gpu_pod("important"), "high")

    evicting.when("important", bound)
    (victim,) = set(names) - evicting.there()
    assert victim.startswith("middle-")


def test_what_comes_free_is_kept_and_nobody_else_goes_meanwhile(evicting: Site) -> None:
    names = evicting.fill({"low": GPUS - 1}, "left")
    names += evicting.fill({"middle": GPUS}, "right")
    slow = gpu_pod("slow")
    slow["metadata"]["finalizers"] = ["example.org/slow"]
    evicting.create(slow, "low", on="left")
    evicting.when("slow", bound)
    # The youngest goes first.
    evicting.create(gpu_pod("important"), "high")
    evicting.when("slow", lambda pod: "deletionTimestamp" in pod["metadata"])

    for number in range(3):  # each of them makes kube-scheduler ask again for the one before
        with evicting.counted('duration_seconds_count{verb="filter"}'):
            evicting.create(gpu_pod(f"late-{number}"), "low")
    late = {f"late-{number}" for number in range(3)}
    for name in late:
        evicting.when(name, lambda pod: refused(pod) != "")
    assert evicting.there() == {*names, *late, "important"}

    evicting.release("slow")

    evicting.when("important", bound)
    assert evicting.there() == {*names, *late, "important"}
    assert not any(bound(evicting.api.get(f"{PODS}/{name}")) for name in late)


def test_the_api_server_refuses_evictions_of_a_leader_of_the_past(evicting: Site) -> None:
    (name, *_) = evicting.fill({"low": 1}, "left")

    def evict(epoch: int) -> None:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {
                "name": name,
                "labels": {"gpudetour.io/gpu": "true"},
                "annotations": {
                    "gpudetour.io/assigned": f'{{"v":1,"epoch":{epoch},"containers":{{}}}}'
                },
            },
        }
        evicting.api.create(f"{PODS}/{name}/eviction?dryRun=All", eviction)

    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{EXTENDER}"
    epoch = int(evicting.api.get(lease)["spec"]["leaseTransitions"])

    evict(epoch)
    with pytest.raises(ApiError, match="no longer the leader"):
        evict(epoch - 1)


def protect(site: Site, *, at_least: int, healthy: int) -> None:
    """Cover the pods of low priority by a budget, and wait until it counts them."""
    spec = {"selector": {"matchLabels": {"priority": "low"}}, "minAvailable": at_least}
    site.api.create(BUDGETS, {"metadata": {"name": "budget"}, "spec": spec})
    site.stack.cluster.wait_for(
        f"{BUDGETS}/budget",
        lambda found: found.get("status", {}).get("currentHealthy") == healthy,
    )
