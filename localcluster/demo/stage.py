"""What the chapters stand on: the cluster, gpudetour on it, and ways to look at both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.demo.narrator import Narrator
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from localcluster.stack import Stack

PODS = Path(__file__).with_name("pods")

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One running demo."""

    narrator: Narrator
    cluster: LocalCluster
    stack: Stack

    def machine(self, node: str, profile: str) -> Path:
        """Lay the NVML machine of a node out and return its driver root."""
        root = self.cluster.state / "machines" / node
        install(root, profile, node=node)
        return root

    def gpus_below(self, root: Path) -> tuple[str, ...]:
        """UUIDs of the machine that was laid out below a driver root."""
        return Machine(root).uuids

    def simulate(self, node: str, profile: str) -> None:
        """Add a simulated node with the GPUs of a profile, and its own agent."""
        self.cluster.create_simulated_nodes([node])
        self.stack.start_agent(node, self.machine(node, profile))

    def look(self, path: str) -> Object:
        """The object at an API path, empty while there is none."""
        try:
            return self.cluster.api.get(path)
        except ApiError:
            return {}

    def pod(self, name: str) -> Object:
        """A pod of the demo."""
        return self.look(f"/api/v1/namespaces/default/pods/{name}")

    def node(self, name: str) -> Object:
        """A node of the demo."""
        return self.look(f"/api/v1/nodes/{name}")

    def running(self, name: str) -> bool:
        """Tell whether a pod of the demo runs."""
        return bool(self.pod(name).get("status", {}).get("phase") == "Running")

    def waits_because(self, name: str, words: str) -> bool:
        """Tell whether the scheduler says of a pod that it waits for the given reason."""
        conditions = self.pod(name).get("status", {}).get("conditions") or ()
        return any(words in condition.get("message", "") for condition in conditions)

    def path(self, node: str) -> str:
        """By which path a node says that it serves GPUs."""
        return annotations_of(self.node(node)).get("gpudetour.io/path", "")

    def allocatable(self, node: str) -> str | None:
        """What kubelet advertises of `nvidia.com/gpu`, None where it does not know the resource."""
        allocatable: dict[str, str] = self.node(node).get("status", {}).get("allocatable", {})
        return allocatable.get("nvidia.com/gpu")

    def devices_given(self, name: str) -> dict[str, list[str]]:
        """Container to devices, as the ConfigMap of a pod hands them to its containers."""
        config_map = annotations_of(self.pod(name)).get("gpudetour.io/devices-from", "")
        found = self.look(f"/api/v1/namespaces/default/configmaps/{config_map}")
        return {name: text.split(",") for name, text in found.get("data", {}).items()}

    def gpus_of(self, node: str) -> list[Object]:
        """The GPUs that a node's agent published."""
        text = annotations_of(self.node(node)).get("gpudetour.io/inventory", '{"gpus":[]}')
        gpus: list[Object] = json.loads(text)["gpus"]
        return gpus

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment inside the running container of a pod on the real node."""
        said = self.cluster.kubectl("exec", name, "--", "/bin/box", "env", check=False)
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def annotations_of(item: Object) -> dict[str, str]:
    """The annotations of an object, which may have none."""
    return item.get("metadata", {}).get("annotations") or {}
