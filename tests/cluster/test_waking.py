"""A pod that waits is bound soon after a GPU that fits comes free, becomes healthy, or is added.

The nodes have no agents here: what an agent or kubelet would write is written by the tests, so that
nothing but that one change can make kube-scheduler try again. README and ARCHITECTURE tell which
changes do.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
import urllib3

from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE
from gpus.model import Health
from localcluster.simulated import NodeTemplate
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.builders import NodeBuilder, node
from tests.cluster.pods import Object, asking, refused
from tests.cluster.watching import Binds, binds_of, errors, filters

pytestmark = pytest.mark.controlplane

#: Seconds from the change to the bind. By the scheduler's own backoff it would be 8 after so many
#: tries, and minutes where nothing wakes it.
SOON = 2.0
#: The same after errors: a second of backoff, to be looked at once a second.
AFTER_ERRORS = 3.0
#: Seconds for which a place is kept between filter and bind; the extender's default.
HOLD = 5.0
#: How often a pod was asked for in vain before the change.
TRIES = 4
PODS = "/api/v1/namespaces/default/pods"
GPU = {"nvidia.com/gpu": 1}
MOST = {"gpudetour.io/gpu-memory": "60Gi"}

_groups = itertools.count()


class Group:
    """Nodes for the pods of one test, and pods that can go nowhere else."""

    def __init__(self, stack: Stack, binds: Binds) -> None:
        self.name = f"group-{next(_groups)}"
        self.binds = binds
        self._stack = stack
        self._api = stack.cluster.api
        self._nodes: list[str] = []
        self._pods: list[str] = []

    def node(self, suffix: str) -> NodeBuilder:
        """Begin to describe a node of this group."""
        return node(f"{self.name}-{suffix}")

    def add(self, node: NodeBuilder) -> None:
        """Create a node that is ready."""
        template = NodeTemplate(
            capacity={"cpu": "64", "memory": "512Gi", "pods": "110", **node.allocatable},
            labels={GPU_LABEL: GPU_LABEL_VALUE, "group": self.name},
            annotations=node.annotations,
        )
        self._stack.cluster.create_bare_nodes([node.name], template)
        self._nodes.append(node.name)

    def becomes(self, node: NodeBuilder) -> None:
        """Write what the agent, or kubelet on the plugin path, would write of a node now."""
        path = f"/api/v1/nodes/{node.name}"
        if node.allocatable:
            resources = {"capacity": dict(node.capacity), "allocatable": dict(node.allocatable)}
            self._api.patch(f"{path}/status", {"status": resources})
        else:
            self._api.patch(path, {"metadata": {"annotations": dict(node.annotations)}})

    def create(self, name: str, limits: Object, *, scheduler: str = "default-scheduler") -> str:
        """Create a pod and return its name."""
        pod = asking(f"{self.name}-{name}", limits)
        pod["spec"]["schedulerName"] = scheduler
        pod["spec"]["nodeSelector"] = {"group": self.name}
        self._api.create(PODS, pod)
        self._pods.append(pod["metadata"]["name"])
        return self._pods[-1]

    def holder(self, limits: Object) -> str:
        """Create a pod and wait until it is bound."""
        pod = self.create("holder", limits)
        self.binds.wait(pod)
        return pod

    def waiter(self, limits: Object, *, name: str = "waiter", tries: int = TRIES) -> str:
        """Create a pod and return when it has been tried in vain so many times."""
        pod = self.create(name, limits)
        self._stack.cluster.wait_for(f"{PODS}/{pod}", lambda seen: bool(refused(seen)))
        for number in range(tries - 1):
            before = filters(self._stack)
            nudge = {"metadata": {"annotations": {"example.org/nudge": f"{name}-{number}"}}}
            self._api.patch(f"/api/v1/nodes/{self._nodes[0]}", nudge)
            until(lambda: filters(self._stack) > before, timeout=30, what="another try")  # noqa: B023 - called in this round
        assert pod not in self.binds.bound()
        return pod

    def ask_for(self, pod: str) -> None:
        """Call filter for a pod that fits, as kube-scheduler would."""
        args = {"Pod": self._api.get(f"{PODS}/{pod}"), "NodeNames": self._nodes}
        client = self._stack.certificates / "scheduler-client"
        with urllib3.PoolManager(
            ca_certs=str(client / "ca.crt"),
            cert_file=str(client / "tls.crt"),
            key_file=str(client / "tls.key"),
        ) as pool:

            def fits() -> bool:  # as soon as the extender has heard of the nodes
                url = f"{self._stack.extender_url}/filter"
                answer = pool.request("POST", url, json=args).json()
                return bool(answer["NodeNames"] == self._nodes)

            until(fits, timeout=30, what=f"room for {pod}")

    def ends(self, pod: str) -> None:
        """Let a pod be done, as kubelet would tell."""
        self._api.patch(f"{PODS}/{pod}/status", {"status": {"phase": "Succeeded"}})

    def delete(self, pod: str) -> None:
        """Delete a pod, and let its kubelet agree at once."""
        self._api.delete(f"{PODS}/{pod}", grace_seconds=0)

    def clear(self) -> None:
        """Leave nothing behind."""
        for pod in self._pods:
            if self._api.get(PODS, fieldSelector=f"metadata.name={pod}")["items"]:
                self.delete(pod)
        for name in self._nodes:
            self._api.delete(f"/api/v1/nodes/{name}")


@pytest.fixture(scope="module")
def binds(quiet_stack: Stack) -> Iterator[Binds]:
    with binds_of(quiet_stack.cluster, "default") as binds:
        yield binds


@pytest.fixture
def group(quiet_stack: Stack, binds: Binds) -> Iterator[Group]:
    group = Group(quiet_stack, binds)
    yield group
    group.clear()


def seconds_to_bind(group: Group, pod: str, change: Callable[[], None]) -> float:
    """Make a change and return how long after its beginning the pod was seen bound."""
    began = time.monotonic()
    change()
    return group.binds.wait(pod) - began


def on_annotation_path(node: NodeBuilder) -> NodeBuilder:
    return node.annotation_path()


def on_plugin_path(node: NodeBuilder) -> NodeBuilder:
    """What kubelet tells: it leaves unhealthy devices out of allocatable."""
    healthy = sum(gpu.health is Health.HEALTHY for gpu in node.gpus)
    return node.inventory().plugin_path(healthy=healthy)


Path = Callable[[NodeBuilder], NodeBuilder]
both_paths = pytest.mark.parametrize("path", [on_annotation_path, on_plugin_path])


@both_paths
def test_when_the_holder_ends(group: Group, path: Path) -> None:
    group.add(path(group.node("a").with_gpus(1)))
    holder = group.holder(GPU)
    waiter = group.waiter(GPU)

    assert seconds_to_bind(group, waiter, lambda: group.ends(holder)) <= SOON


@both_paths
def test_when_the_holder_is_deleted(group: Group, path: Path) -> None:
    group.add(path(group.node("a").with_gpus(1)))
    holder = group.holder(GPU)
    waiter = group.waiter(GPU)

    assert seconds_to_bind(group, waiter, lambda: group.delete(holder)) <= SOON


@both_paths
def test_when_a_gpu_is_healthy_again(group: Group, path: Path) -> None:
    well = group.node("a").with_gpus(1)
    group.add(path(well.health(Health.FAULTY, 0)))
    waiter = group.waiter(GPU)

    assert seconds_to_bind(group, waiter, lambda: group.becomes(path(well))) <= SOON


@both_paths
def test_when_a_gpu_is_added_to_a_node(group: Group, path: Path) -> None:
    group.add(path(group.node("a").with_gpus(1)))
    group.holder(GPU)
    waiter = group.waiter(GPU)
    larger = path(group.node("a").with_gpus(2))

    assert seconds_to_bind(group, waiter, lambda: group.becomes(larger)) <= SOON


@both_paths
def test_when_a_node_is_added(group: Group, path: Path) -> None:
    group.add(path(group.node("a").with_gpus(1)))
    group.holder(GPU)
    waiter = group.waiter(GPU)
    another = path(group.node("b").with_gpus(1))

    assert seconds_to_bind(group, waiter, lambda: group.add(another)) <= SOON
    assert group.binds.node(waiter) == another.name


@pytest.mark.parametrize(
    ("held", "wanted"),
    [(MOST, MOST), (MOST, GPU), (GPU, MOST)],
    ids=["share for share", "a GPU for a share", "a share for a GPU"],
)
def test_when_a_share_or_the_gpu_of_shares_is_given_back(
    group: Group, held: Object, wanted: Object
) -> None:
    group.add(group.node("a").with_gpus(1).cards(memory_bytes=80 << 30).annotation_path())
    holder = group.holder(held)
    waiter = group.waiter(wanted)

    assert seconds_to_bind(group, waiter, lambda: group.ends(holder)) <= SOON


def test_when_a_place_is_held_no_longer_of_which_the_scheduler_knows_nothing(group: Group) -> None:
    group.add(group.node("a").with_gpus(1).annotation_path())
    # A pod that fits, and never comes to be bound.
    lost = group.create("lost", GPU, scheduler="nobody")
    group.ask_for(lost)
    held_at = time.monotonic()
    # More tries could outlast the hold.
    waiter = group.waiter(GPU, tries=1)

    assert group.binds.wait(waiter) - held_at <= HOLD + SOON


def test_one_of_many_that_wait_gets_the_gpu(group: Group) -> None:
    group.add(group.node("a").with_gpus(1).annotation_path())
    holder = group.holder(GPU)
    waiters = [group.waiter(GPU, name=f"waiter-{number}", tries=1) for number in range(20)]
    began = time.monotonic()
    group.delete(holder)

    assert group.binds.wait(*waiters) - began <= SOON
    assert len(group.binds.bound().intersection(waiters)) == 1


def test_after_an_outage_of_the_extender_with_one_failed_try_after_another(
    quiet_stack: Stack, group: Group
) -> None:
    group.add(group.node("a").with_gpus(1).annotation_path())
    quiet_stack.stop("extender")
    before = errors(quiet_stack.cluster)
    try:
        waiter = group.create("waiter", GPU)
        # By default the next try would be 8 s away.
        until(lambda: errors(quiet_stack.cluster) >= before + 4, timeout=30, what="four errors")
    finally:
        quiet_stack.start_extender()
    ready = time.monotonic()

    assert group.binds.wait(waiter) - ready <= AFTER_ERRORS
