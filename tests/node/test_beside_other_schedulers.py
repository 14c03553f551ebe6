"""GPUs that kubelet's plugin gives out, while two schedulers that do not talk place pods there.

The cluster's own scheduler places pods of namespaces that the webhook leaves alone; ours hears of
them by what kubelet gave out. What it has not heard yet, kubelet settles.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.cluster import LocalCluster
from localcluster.foreignplugin import Foreign
from localcluster.secondscheduler import Replica
from localcluster.shipped import Variant
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Object, bound, gpu_pod, refused
from tests.node.gpu_node import PATIENCE, GpuNode, holders, is_running

pytestmark = pytest.mark.node

SYSTEM = "/api/v1/namespaces/kube-system/pods"
USER = "/api/v1/namespaces/default/pods"


@pytest.fixture
def node(machine_alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuNode]:
    """A node with two GPUs and another's plugin, in a cluster with our scheduler as the second."""
    del machine_alone
    state = tmp_path_factory.mktemp("c", numbered=True) / "s"
    with LocalCluster(state, node=True) as cluster:
        stack = Stack(cluster, variant=Variant.SECOND_SCHEDULER)
        stack.install()
        replica = Replica(stack, "pod-a")
        replica.start()
        until(replica.serves, timeout=60, what="our scheduler")
        node = GpuNode(cluster, stack, tmp_path_factory.mktemp("driver"))
        with Foreign(node.plugins, sorted(node.uuids)):
            node.gives_out(2)
            node.start_agent()
            node.path_is("plugin", "OtherDevicePlugin")
            node.offers(2)
            yield node
            cluster.kubectl("delete", "pods", "--all", "--all-namespaces", "--grace-period=1")


def create(node: GpuNode, pods: str, name: str) -> Object:
    """Create a pod with one GPU, of the image that prints its environment."""
    pod = gpu_pod(name)
    pod["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    pod["spec"]["automountServiceAccountToken"] = False
    return node.cluster.api.create(pods, pod)


def running(node: GpuNode, pods: str, name: str) -> Object:
    """The pod when it runs."""
    return node.cluster.wait_for(f"{pods}/{name}", is_running, timeout=PATIENCE)


def gpu_of(node: GpuNode, namespace: str, name: str) -> str:
    """Which GPU the plugin's variable names in a container."""

    def printed() -> str | None:
        text = node.cluster.kubectl("logs", name, "-n", namespace, check=False)
        return text if "PATH=" in text else None

    text = until(printed, timeout=PATIENCE, what=f"environment of {name}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)[
        "NVIDIA_VISIBLE_DEVICES"
    ]


def test_pods_of_the_clusters_own_scheduler_are_counted_and_none_shares_a_gpu(
    node: GpuNode,
) -> None:
    system = create(node, SYSTEM, "system")
    assert system["spec"]["schedulerName"] == "default-scheduler"
    running(node, SYSTEM, "system")
    first = gpu_of(node, "kube-system", "system")
    node.node_when(lambda found: holders(found) == {first: system["metadata"]["uid"]})

    create(node, USER, "ours")
    running(node, USER, "ours")
    assert {first, gpu_of(node, "default", "ours")} == node.uuids
    create(node, USER, "one-too-many")
    waiting = node.cluster.wait_for(f"{USER}/one-too-many", lambda pod: refused(pod) != "")

    assert not bound(waiting)
    assert "all GPUs in use" in refused(waiting)

    # Now one that we do not hear of: the agent is away, and the plugin serves on.
    node.cluster.kubectl("delete", "pod", "one-too-many", "ours", "--grace-period=1")
    node.stop_agent()
    create(node, SYSTEM, "unheard")
    running(node, SYSTEM, "unheard")
    assert gpu_of(node, "kube-system", "unheard") != first
    create(node, USER, "misled")

    misled = node.cluster.wait_for(
        f"{USER}/misled", lambda pod: pod["status"].get("phase") == "Failed", timeout=PATIENCE
    )

    assert bound(misled)
    assert misled["status"]["reason"] in ("UnexpectedAdmissionError", "OutOfnvidia.com/gpu")
    assert {first, gpu_of(node, "kube-system", "unheard")} == node.uuids
