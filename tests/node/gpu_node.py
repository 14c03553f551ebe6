"""The real node with simulated GPUs and an agent, as the tests of this folder handle it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpus.annotations import EPOCH
from gpus.model import ResourceName
from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.stack import KubeletFolders, Stack
from localcluster.waiting import until
from nodeagent.podresources.client import PodResources
from tests.cluster.fence import ACCOUNT, epoch_in_force
from tests.device_nodes import make_device_node

Object = dict[str, Any]

NODE = "node1"
GPU = "nvidia.com/gpu"
_VENDOR = "nvidia.com/"
CHECKPOINT = "kubelet_internal_checkpoint"
#: Seconds for what involves kubelet's status updates.
PATIENCE = 60.0
_PODS = "/api/v1/namespaces/default/pods"
_NODE = f"/api/v1/nodes/{NODE}"
_IMAGE = "gpudetour.local/cuda:1"
_OURS = {"gpudetour.io/gpu": "true"}
_EXTENDER = "system:serviceaccount:gpudetour-system:gpudetour-extender"
_CONDITION = "GPUPathHealthy"


class GpuNode:
    """`node1` with two GPUs; every test finds it without plugin, pods and agent."""

    def __init__(
        self,
        cluster: LocalCluster,
        stack: Stack,
        driver_root: Path,
        *,
        profile: str = "2x-rtx-4090",
    ) -> None:
        self.cluster = cluster
        self.stack = stack
        self.driver_root = driver_root
        self.machine = install(driver_root, profile, node=NODE)
        for name in ("nvidia0", "nvidia1", "nvidiactl"):
            make_device_node(driver_root, name)

    @property
    def plugins(self) -> Path:
        """Kubelet's plugin folder."""
        return self.cluster.node.device_plugins

    @property
    def uuids(self) -> set[str]:
        return set(self.machine.uuids)

    # The agent

    def start_agent(self, options: Mapping[str, str] | None = None) -> None:
        folders = KubeletFolders(
            root=self.cluster.node.pod_resources_socket.parent.parent,
            device_plugins=self.plugins,
            cdi=self.cluster.node.cdi,
        )
        self.stack.start_agent(NODE, self.driver_root, kubelet=folders, options=options)

    def stop_agent(self) -> None:
        self.cluster.processes.stop(f"agent-{NODE}")

    def agent_log(self) -> str:
        """What the agents of this test wrote, at most the end of it."""
        log = self.cluster.processes.log(f"agent-{NODE}")
        return log.read_text()[-20_000:] if log.exists() else ""

    # The Node

    def node(self) -> Object:
        return self.cluster.api.get(_NODE)

    def node_when(
        self, predicate: Callable[[Object], bool], *, timeout: float = PATIENCE
    ) -> Object:
        return self.cluster.wait_for(_NODE, predicate, timeout=timeout)

    def path_is(self, path: str, cause: str, *, timeout: float = PATIENCE) -> Object:
        """Wait until the Node shows a path, and its condition the cause."""
        return self.node_when(
            lambda node: (path_of(node), condition(node).get("reason")) == (path, cause),
            timeout=timeout,
        )

    def offers(
        self, count: int | None, *, resource: str = GPU, timeout: float = PATIENCE
    ) -> Object:
        """Wait until kubelet offers so many GPUs; None: until node status does not name them."""
        wanted = None if count is None else str(count)
        return self.node_when(
            lambda node: node["status"]["allocatable"].get(resource) == wanted, timeout=timeout
        )

    def gives_out(self, count: int) -> None:
        """Wait until kubelet itself, which is ahead of node status, has so many healthy GPUs."""
        kubelet = PodResources(self.cluster.node.pod_resources_socket.parent.parent)
        resource = ResourceName(GPU)
        until(
            lambda: len(kubelet.read().healthy.get(resource, ())) == count,
            timeout=PATIENCE,
            what=f"{count} GPUs that kubelet gives out",
        )

    def checkpoint_written(self) -> int:
        """When kubelet last wrote its checkpoint, which it does for every list of a plugin."""
        return (self.plugins / CHECKPOINT).stat().st_mtime_ns

    def listed_since(self, written: int) -> None:
        """Wait until kubelet has taken a list of two GPUs since it wrote its checkpoint so."""
        until(
            lambda: self.checkpoint_written() != written,
            timeout=PATIENCE,
            what="another list of a plugin",
        )
        self.gives_out(2)

    def label(self, labels: Mapping[str, str | None]) -> None:
        self.cluster.api.patch(_NODE, {"metadata": {"labels": dict(labels)}})

    # Pods

    def create_pod(
        self,
        name: str,
        *,
        command: list[str] | None = None,
        devices: Sequence[str] = (),
        asks: Mapping[str, int] | None = None,
    ) -> Object:
        """Create a pod that asks for a GPU, or for what `asks` says; place it as the extender does.

        It prints its environment and waits, or runs `command`. `devices` are those assigned to it
        on the annotation path; on the plugin path kubelet chooses.
        """
        pod = self.cluster.api.create(_PODS, _gpu_pod(name, command, asks or {GPU: 1}))
        containers = {"main": list(devices)} if devices else {}
        assigned = {"v": 1, "epoch": self._epoch(), "containers": containers}
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": name,
                "labels": _OURS,
                "annotations": {
                    "gpudetour.io/assigned": json.dumps(assigned, separators=(",", ":"))
                },
            },
            "target": {"kind": "Node", "name": NODE},
        }
        raw = ["create", "--raw", f"{_PODS}/{name}/binding", "-f", "-", f"--as={_EXTENDER}"]
        self.cluster.kubectl(*raw, stdin=json.dumps(binding))
        return pod

    def pod(self, name: str) -> Object:
        return self.cluster.api.get(f"{_PODS}/{name}")

    def running(self, name: str) -> Object:
        """Wait until a pod runs; its failure is told at once."""

        def settled(pod: Object) -> bool:
            return pod["status"].get("phase") == "Failed" or is_running(pod)

        pod = self.cluster.wait_for(f"{_PODS}/{name}", settled, timeout=PATIENCE)
        assert is_running(pod), pod["status"]
        return pod

    def environment(self, name: str) -> dict[str, str]:
        """The environment that a running container printed, sorted."""
        text = self.output(name, until_seen="PATH=")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def output(self, name: str, *, until_seen: str) -> str:
        """What a container printed, once that has been seen."""

        def printed() -> str | None:
            text = self.cluster.kubectl("logs", name, check=False)
            return text if until_seen in text else None

        return until(printed, timeout=PATIENCE, what=f"{until_seen!r} in the output of {name}")

    def delete_pod(self, name: str) -> None:
        self.cluster.kubectl("delete", "pod", name, "--grace-period=1", "--wait=true")

    def _epoch(self) -> int:
        """The epoch that the fence lets through, the first one where no extender ever led."""
        metadata = self.cluster.api.get(ACCOUNT)["metadata"]
        if EPOCH not in metadata.get("annotations", {}):
            self.cluster.api.patch(ACCOUNT, {"metadata": {"annotations": {EPOCH: "1"}}})
        return epoch_in_force(self.cluster.api)

    # Back to the start

    def reset(self) -> None:
        """Take pods, agent and wishes away, and let kubelet and the Node forget every plugin."""
        self.cluster.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=true")
        self.stop_agent()
        self.forget_plugins()
        node = self.node()
        names = [name for name in annotations_of(node) if "gpudetour.io/" in name]
        metadata = {"labels": {"gpudetour.io/path": None}, "annotations": dict.fromkeys(names)}
        self.cluster.api.patch(_NODE, {"metadata": metadata})
        # Else the next agent would tell no change where it finds the same cause.
        told = {"status": {"conditions": [{"type": _CONDITION, "$patch": "delete"}]}}
        self.cluster.api.patch(f"{_NODE}/status", told, kind="strategic")
        if served := [name for name in node["status"]["capacity"] if name.startswith(_VENDOR)]:
            absent = dict.fromkeys(served)
            gone = {"status": {"capacity": absent, "allocatable": absent}}
            self.cluster.api.patch(f"{_NODE}/status", gone)

    def forget_plugins(self) -> None:
        """What an admin of an empty node does instead of waiting five minutes."""
        self.cluster.node.stop_kubelet()
        (self.plugins / CHECKPOINT).unlink(missing_ok=True)
        self.cluster.node.start_kubelet()


def _gpu_pod(name: str, command: list[str] | None, asks: Mapping[str, int]) -> Object:
    """A pod that the webhook has seen, and that waits for a Binding."""
    container: Object = {
        "name": "main",
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "resources": {"limits": dict(asks)},
    }
    if command is not None:
        container["command"] = command
    return {
        "metadata": {"name": name, "labels": _OURS},
        "spec": {
            "containers": [container],
            "automountServiceAccountToken": False,
            "restartPolicy": "Always" if command is None else "Never",
            "schedulerName": "nobody",
        },
    }


def annotations_of(item: Object) -> dict[str, str]:
    return item["metadata"].get("annotations") or {}


def path_of(node: Object) -> str | None:
    return annotations_of(node).get("gpudetour.io/path")


def holders(node: Object) -> dict[str, str]:
    """Device to pod UID, as the agent observed."""
    text = annotations_of(node).get("gpudetour.io/in-use", '{"holders":{}}')
    return dict(json.loads(text)["holders"])


def condition(node: Object) -> Object:
    found = (c for c in node["status"]["conditions"] if c["type"] == _CONDITION)
    return next(found, {})


def is_running(pod: Object) -> bool:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return all("running" in (status.get("state") or {}) for status in statuses)


def containers(pod: Object) -> list[tuple[str, int]]:
    """What must not change while a pod runs undisturbed."""
    return [(s["containerID"], s["restartCount"]) for s in pod["status"]["containerStatuses"]]
