"""gpudetour on a real control plane: what the tests of this folder share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Create, Object, PodWhen, serves_gpus
from tests.cluster.sites import no_nodes
from tests.cluster.watching import wait_for_no_pods, wait_for_nodes

NODES = tuple(f"node-{number}" for number in range(5))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """Five simulated nodes with eight H100 each, every one with its own agent and NVML."""
    del control_plane_parts
    folder = tmp_path_factory.mktemp("stack")
    with LocalCluster(folder / "cluster") as cluster:
        stack = Stack(cluster)
        stack.install()
        cluster.create_simulated_nodes(NODES)
        for node in NODES:
            root = folder / "driver" / node
            install(root, "8x-h100", node=node)
            stack.start_agent(node, root)
        for node in NODES:
            cluster.wait_for(f"/api/v1/nodes/{node}", serves_gpus, timeout=60)
        wait_for_nodes(stack, len(NODES))
        yield stack


@pytest.fixture(scope="session")
def quiet_stack(
    tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None
) -> Iterator[Stack]:
    """A cluster without nodes, in which nothing happens but what a test does."""
    del control_plane_parts
    with no_nodes(tmp_path_factory.mktemp("quiet")) as stack:
        yield stack


@pytest.fixture
def namespace(stack: Stack) -> Iterator[str]:
    """A namespace of its own for one test; nothing of it is left afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    api = stack.cluster.api
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    stack.cluster.wait_for(account, bool)
    yield name
    stack.cluster.kubectl("delete", "pods", "--all", "-n", name, "--force", "--grace-period=0")
    stack.cluster.kubectl("delete", "namespace", name, "--wait=false")
    pods = f"/api/v1/namespaces/{name}/pods"
    until(lambda: not api.get(pods)["items"], timeout=60, what=f"no pods in {name}")
    if stack.cluster.processes.alive("extender"):
        wait_for_no_pods(stack)


@pytest.fixture
def create(stack: Stack, namespace: str) -> Create:
    """Creates a pod in the test's namespace and returns it as it was stored."""
    return lambda pod: stack.cluster.api.create(f"/api/v1/namespaces/{namespace}/pods", pod)


@pytest.fixture
def pod_when(stack: Stack, namespace: str) -> PodWhen:
    """Waits for a pod of the test's namespace to satisfy a predicate, and returns it."""

    def wait(name: str, predicate: Callable[[Object], bool]) -> Object:
        return stack.cluster.wait_for(f"/api/v1/namespaces/{namespace}/pods/{name}", predicate)

    return wait
