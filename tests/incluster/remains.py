"""What is left of gpudetour on a cluster and its node: nothing, after its removal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from localcluster.api import ApiClient
from localcluster.cluster import LocalCluster

_OURS = "gpudetour"
#: Where things of ours may lie on the node's disk.
_FOLDERS = ("run/cdi", "var/lib/kubelet/device-plugins")
#: What tells of the past, and what users have.
_NOT_OURS = ("events", "pods", "replicasets", "deployments")


def remains(cluster: LocalCluster) -> list[str]:
    """Everything of ours that is still there, in words; users' own workloads aside."""
    api = cluster.api
    return [*_objects(api), *_on_nodes(api), *_on_disk(cluster.node.root)]


def _objects(api: ApiClient) -> Iterator[str]:
    """Objects by name or by namespace, of every kind that can be listed."""
    for path, resource in _resources(api):
        for item in api.get(f"{path}/{resource}")["items"]:
            metadata = item["metadata"]
            namespace = metadata.get("namespace", "")
            if _OURS in namespace or (_OURS in metadata["name"] and resource not in _NOT_OURS):
                yield f"{resource} {namespace}/{metadata['name']}"


def _resources(api: ApiClient) -> Iterator[tuple[str, str]]:
    groups = [group["preferredVersion"]["groupVersion"] for group in api.get("/apis")["groups"]]
    for path in ("/api/v1", *(f"/apis/{version}" for version in groups)):
        for resource in api.get(path)["resources"]:
            if "list" in resource["verbs"]:
                yield path, resource["name"]


def _on_nodes(api: ApiClient) -> Iterator[str]:
    for node in api.get("/api/v1/nodes")["items"]:
        for where in ("annotations", "labels"):
            yield from (
                f"{where} {name}" for name in node["metadata"].get(where, {}) if _is_ours(name)
            )
        yield from (
            f"condition {each['type']}"
            for each in node["status"]["conditions"]
            if each["type"].startswith("GPU")
        )


def _is_ours(name: str) -> bool:
    # The labels of NVIDIA's feature discovery are the agent's too where nobody else writes them.
    return _OURS in name or name.startswith("nvidia.com/")


def _on_disk(root: Path) -> Iterator[str]:
    for folder in _FOLDERS:
        yield from (
            f"file /{folder}/{path.name}"
            for path in (root / folder).iterdir()
            if _OURS in path.name
        )
