"""What is read through the API server, and what is left out where it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from doctor.facts.cluster import Cluster
from doctor.gather.cluster import NoSuchNode, read_cluster
from kube.client import Client
from kube.errors import ConnectionFailed, Forbidden
from tests.fakes.api_server import Answer, FakeApiServer, Reply, Request, Stream, refusal

NODE = {
    "metadata": {"name": "n1", "labels": {"a": "b"}},
    "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
    "status": {
        "capacity": {"nvidia.com/gpu": 1},
        "allocatable": {"nvidia.com/gpu": "0"},
        "nodeInfo": {"containerRuntimeVersion": "containerd://2.1.5"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
DAEMONSET = {
    "metadata": {"namespace": "kube-system", "name": "nvdp"},
    "spec": {
        "selector": {"matchLabels": {"app": "nvdp"}},
        "template": {
            "spec": {
                "runtimeClassName": "nvidia",
                "volumes": [
                    {"name": "config", "configMap": {"name": "nvdp-config"}},
                    {"name": "lib", "hostPath": {"path": "/usr/lib"}},
                ],
                "containers": [
                    {
                        "image": "nvcr.io/nvidia/k8s-device-plugin:v0.18.0@sha256:00",
                        "command": ["nvidia-device-plugin", "--mig-strategy", "single"],
                        "args": ["--device-list-strategy=cdi"],
                        "env": [
                            {"name": "DEVICE_LIST_STRATEGY", "value": "envvar"},
                            {"name": "DEVICE_ID_STRATEGY", "value": "index"},
                            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
                        ],
                        "volumeMounts": [{"name": "lib", "mountPath": "/host/lib"}],
                        "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}},
                    }
                ],
            }
        },
    },
    "status": {"desiredNumberScheduled": 3},
}
#: Another DaemonSet of the same image that is no device plugin.
DISCOVERY = {
    "metadata": {"namespace": "kube-system", "name": "gfd"},
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.4",
                        "command": ["/usr/bin/gpu-feature-discovery"],
                    }
                ]
            }
        }
    },
}
POD = {
    "metadata": {"name": "nvdp-x"},
    "status": {
        "phase": "Running",
        "containerStatuses": [
            {"ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        ],
    },
}


def listing(*items: dict[str, Any]) -> Answer:
    return Answer(body={"metadata": {"resourceVersion": "1"}, "items": list(items)})


ANSWERS: dict[str, Reply] = {
    "/api/v1/nodes/n1": Answer(body=NODE),
    "/apis/node.k8s.io/v1/runtimeclasses": listing(
        {"metadata": {"name": "nvidia"}, "handler": "nvidia"}
    ),
    "/apis/resource.k8s.io/v1/deviceclasses": listing(
        {"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "nvidia.com/gpu"}},
        {"metadata": {"name": "net"}, "spec": None},
    ),
    "/apis/resource.k8s.io/v1/resourceslices": listing(
        {"spec": {"driver": "gpu.nvidia.com", "nodeName": "n1"}},
        {"spec": {"driver": "gpu.nvidia.com", "nodeName": "n2"}},
    ),
    "/apis/apps/v1/daemonsets": listing(DAEMONSET, DISCOVERY, {"metadata": {}}),
    "/api/v1/namespaces/kube-system/configmaps/nvdp-config": Answer(
        body={"data": {"default": "version: v1"}}
    ),
    "/api/v1/namespaces/kube-system/pods": listing(POD),
    "/api/v1/namespaces/kube-system/pods/nvdp-x/log": Stream(
        [b"first line\nsecond", b" line\n", b"no newline at its end"]
    ),
}


def server(**changes: Reply) -> Callable[[Request], Reply]:
    """Answers by the last part of the path, where a test changes it."""

    def reply(request: Request) -> Reply:
        last = request.path.rpartition("/")[2].replace("-", "_")
        return changes.get(last) or ANSWERS.get(request.path) or refusal(404, "NotFound")

    return reply


def read(reply: Callable[[Request], Reply], node: str = "n1") -> tuple[Cluster, str | None]:
    with FakeApiServer(reply) as api:
        client = Client(api.connection(), timeout=5.0)
        try:
            return read_cluster(client, node, step=lambda _: None)
        finally:
            client.close()


def test_node_plugin_config_pod_and_log() -> None:
    seen, log = read(server())

    assert seen.capacity == {"nvidia.com/gpu": "1"}
    assert seen.runtime_version == "containerd://2.1.5"
    assert seen.runtime_classes == {"nvidia": "nvidia"}
    assert (seen.extended_classes, seen.slices) == (("gpu",), 1)
    assert seen.plugins is not None
    (plugin,) = seen.plugins
    assert plugin.name == "kube-system/nvdp"
    assert plugin.version == (0, 18, 0)
    assert plugin.settings["device-list-strategy"] == "cdi"  # arguments beat the environment
    assert plugin.settings["device-id-strategy"] == "index"
    assert plugin.settings["mig-strategy"] == "single"
    assert plugin.is_privileged
    assert [(m.host_path, m.path) for m in plugin.mounts] == [("/usr/lib", "/host/lib")]
    assert (plugin.config_map, dict(plugin.configs)) == ("nvdp-config", {"default": "version: v1"})
    assert plugin.untolerated == "nvidia.com/gpu=:NoSchedule"
    assert plugin.pod is not None
    assert plugin.pod.waiting == "CrashLoopBackOff"
    assert log is not None
    assert log.startswith("first line\nsecond line")
    assert seen.unreadable == {}


@pytest.mark.parametrize("part", ["runtimeclasses", "daemonsets", "pods", "log", "nvdp_config"])
def test_what_is_forbidden_is_noted_and_the_rest_is_read(part: str) -> None:
    seen, _ = read(server(**{part: refusal(403, "Forbidden")}))

    assert len(seen.unreadable) == 1
    assert "Forbidden" in next(iter(seen.unreadable.values()))
    assert seen.capacity == {"nvidia.com/gpu": "1"}


def test_a_configmap_that_is_missing_is_a_fact() -> None:
    seen, _ = read(server(nvdp_config=refusal(404, "NotFound")))

    assert seen.plugins is not None
    assert seen.plugins[0].config_map_missing
    assert seen.unreadable == {}


def test_a_cluster_without_dra_is_nothing_special() -> None:
    missing = refusal(404, "NotFound")

    seen, _ = read(server(deviceclasses=missing, resourceslices=missing))

    assert (seen.extended_classes, seen.slices, seen.unreadable) == ((), 0, {})


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(NoSuchNode, match="no node n9"):
        read(server(), node="n9")


def test_a_node_that_may_not_be_read_ends_it() -> None:
    with pytest.raises(Forbidden):
        read(server(n1=refusal(403, "Forbidden")))


def test_no_api_server_ends_it() -> None:
    with FakeApiServer(server()) as api:
        connection = api.connection()
    with pytest.raises(ConnectionFailed):
        read_cluster(Client(connection, timeout=2.0), "n1", step=lambda _: None)


@pytest.mark.parametrize("body", [{"items": [7, None, "x"]}, {"items": [{"spec": [1]}]}])
def test_lists_of_garbage_are_read_as_nothing(body: dict[str, Any]) -> None:
    answer = Answer(body={"metadata": {}, **body})

    seen, _ = read(server(daemonsets=answer, runtimeclasses=answer, resourceslices=answer))

    assert seen.plugins == ()
