"""The real node, shared by these tests: real containers, seen through kubectl."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.api import Object
from localcluster.cluster import LocalCluster
from localcluster.image.make import BOX_IMAGE, CUDA_IMAGE
from localcluster.waiting import until

pytestmark = pytest.mark.node

PODS = "/api/v1/namespaces/default/pods"


def pod(name: str, *, image: str = BOX_IMAGE, args: tuple[str, ...] = (), **spec: object) -> Object:
    container = {
        "name": "main",
        "image": image,
        "args": list(args),
        "env": [{"name": "COLOUR", "value": "blue"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5, **spec},
    }


def in_phase(cluster: LocalCluster, name: str, phase: str) -> Object:
    return cluster.wait_for(
        f"{PODS}/{name}", lambda found: found["status"]["phase"] == phase, timeout=60
    )


def logged(cluster: LocalCluster, name: str) -> list[str]:
    """The lines in which a container told its environment, sorted; it runs before it has."""

    def told() -> list[str]:
        lines = cluster.kubectl("logs", name).splitlines()
        return lines if any(line.startswith("PATH=") for line in lines) else []

    return until(told, timeout=60, what=f"the environment of {name}")


@pytest.fixture
def cluster(real_node: LocalCluster) -> Iterator[LocalCluster]:
    yield real_node
    real_node.kubectl("delete", "pods", "--all", "--namespace=default", "--timeout=60s")


def test_the_node_is_on_the_loopback_address(cluster: LocalCluster) -> None:
    node = cluster.api.get("/api/v1/nodes/node1")

    addresses = {found["type"]: found["address"] for found in node["status"]["addresses"]}
    assert addresses == {"InternalIP": "127.0.0.1", "Hostname": "node1"}


def test_logs_and_exec_show_the_containers_environment(cluster: LocalCluster) -> None:
    cluster.apply([pod("env")])
    in_phase(cluster, "env", "Running")

    lines = logged(cluster, "env")
    executed = cluster.kubectl("exec", "env", "--", "box", "env").splitlines()

    assert "COLOUR=blue" in lines
    assert not [line for line in lines if line.startswith("NVIDIA")]
    assert lines == sorted(lines)
    assert executed == lines


def test_the_cuda_image_asks_for_all_gpus_as_nvidias_images_do(cluster: LocalCluster) -> None:
    cluster.apply([pod("cuda", image=CUDA_IMAGE)])
    in_phase(cluster, "cuda", "Running")

    lines = logged(cluster, "cuda")

    assert "NVIDIA_VISIBLE_DEVICES=all" in lines
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in lines


def test_containers_end_as_their_program_does(cluster: LocalCluster) -> None:
    cluster.apply(
        [
            pod("well", args=("sleep", "0.1"), restartPolicy="Never"),
            pod("badly", args=("fail",), restartPolicy="Never"),
        ]
    )

    in_phase(cluster, "well", "Succeeded")
    in_phase(cluster, "badly", "Failed")


def test_the_nvidia_runtime_class_has_a_handler(cluster: LocalCluster) -> None:
    runtime_class = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "nvidia",
    }

    cluster.apply([runtime_class, pod("by-handler", runtimeClassName="nvidia")])

    in_phase(cluster, "by-handler", "Running")


def test_pods_survive_a_restart_of_kubelet(cluster: LocalCluster) -> None:
    cluster.apply([pod("survivor")])
    before = in_phase(cluster, "survivor", "Running")

    cluster.node.restart_kubelet()

    after = in_phase(cluster, "survivor", "Running")
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert (
        after["status"]["containerStatuses"][0]["containerID"]
        == before["status"]["containerStatuses"][0]["containerID"]
    )
    assert "COLOUR=blue" in cluster.kubectl("exec", "survivor", "--", "box", "env")
    cluster.apply([pod("newcomer")])
    in_phase(cluster, "newcomer", "Running")


def test_kubelet_serves_device_plugins_and_pod_resources(cluster: LocalCluster) -> None:
    assert (cluster.node.device_plugins / "kubelet.sock").is_socket()
    assert cluster.node.pod_resources_socket.is_socket()
