"""Facts of one node from the API server. Reads only; what is refused is noted and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from doctor.facts.cluster import Cluster, Plugin, PluginPod
from doctor.facts.facts import RESOURCE
from doctor.gather.plugin import config_maps, decode_plugin, is_plugin, selector
from doctor.shapes import mapping
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.objects import Node, Struct

_DRA = "/apis/resource.k8s.io/v1"
_DRA_DRIVER = "gpu.nvidia.com"
#: Of the end of a plugin's log; its reasons are among the last lines before it waits.
_LOG_LINES = "400"
_LOG_TIMEOUT = 10.0

Step = Callable[[str], None]


class NoSuchNode(Exception):
    """The API server answers, and knows no node of that name."""


class _NodeInfo(Struct, frozen=True):
    container_runtime_version: str = ""


class _Status(Struct, frozen=True):
    node_info: _NodeInfo = _NodeInfo()


class _NodeSystem(Struct, frozen=True):
    """What `kube.objects.Node` leaves out."""

    status: _Status = _Status()


def read_cluster(client: Client, name: str, *, step: Step) -> tuple[Cluster, str | None]:
    """Return the facts of a node, and the log of NVIDIA's plugin there if one runs.

    Raises `KubeError` where the API server does not answer or refuses the node itself, and
    `NoSuchNode`.
    """
    step("the node")
    path = f"/api/v1/nodes/{name}"
    try:
        node = client.get(path, type=Node)
        system = client.get(path, type=_NodeSystem)
    except NotFound as error:
        raise NoSuchNode(f"the cluster has no node {name}") from error
    reader = _Reader(client)
    step("runtime classes and DRA")
    cluster = Cluster(
        was_read=True,
        node=name,
        labels=node.metadata.labels or {},
        annotations=node.metadata.annotations or {},
        capacity=_quantities(node.status.capacity),
        allocatable=_quantities(node.status.allocatable),
        conditions=tuple(node.status.conditions or ()),
        taints=tuple(node.spec.taints or ()),
        runtime_version=system.status.node_info.container_runtime_version,
        runtime_classes=reader.runtime_classes(),
        extended_classes=reader.extended_classes(),
        slices=reader.slices(name),
    )
    step("device plugins")
    plugins, log = reader.plugins(cluster)
    return replace(cluster, plugins=plugins, unreadable=reader.unreadable), log


class _Reader:
    """Asks for lists that may be forbidden or not exist, and keeps count of refusals."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.unreadable: dict[str, str] = {}

    def runtime_classes(self) -> dict[str, str] | None:
        found = self._list("/apis/node.k8s.io/v1/runtimeclasses")
        if found is None:
            return None
        return {_name(item): str(item.get("handler", "")) for item in found}

    def extended_classes(self) -> tuple[str, ...]:
        found = self._list(f"{_DRA}/deviceclasses", optional=True) or ()
        return tuple(
            _name(item)
            for item in found
            if mapping(item.get("spec")).get("extendedResourceName") == RESOURCE
        )

    def slices(self, node: str) -> int:
        found = self._list(f"{_DRA}/resourceslices", optional=True) or ()
        specs = (mapping(item.get("spec")) for item in found)
        return sum(s.get("driver") == _DRA_DRIVER and s.get("nodeName") == node for s in specs)

    def plugins(self, cluster: Cluster) -> tuple[tuple[Plugin, ...] | None, str | None]:
        """Return NVIDIA's plugins, and the log of the first that runs on the node."""
        daemonsets = self._list("/apis/apps/v1/daemonsets")
        if daemonsets is None:
            return None, None
        found, log = [], None
        for daemonset in filter(is_plugin, daemonsets):
            plugin = decode_plugin(
                daemonset, labels=cluster.labels, taints=cluster.taints, node=cluster.node
            )
            plugin = self._with_configs(plugin, daemonset)
            plugin = replace(plugin, pod=self._pod(plugin, daemonset, cluster.node))
            log = log or self._log(plugin)
            found.append(plugin)
        return tuple(found), log

    def _with_configs(self, plugin: Plugin, daemonset: Mapping[str, Any]) -> Plugin:
        namespace = plugin.name.partition("/")[0]
        texts: dict[str, str] = {}
        for name in config_maps(daemonset):
            try:
                found = self._client.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
            except NotFound:
                return replace(plugin, config_map=name, config_map_missing=True)
            except KubeError as error:
                self.unreadable[f"ConfigMap {namespace}/{name}"] = str(error)
                continue
            data = mapping(mapping(found).get("data"))
            texts |= {key: text for key, text in data.items() if isinstance(text, str)}
        return replace(plugin, configs=texts)

    def _pod(self, plugin: Plugin, daemonset: Mapping[str, Any], node: str) -> PluginPod | None:
        namespace = plugin.name.partition("/")[0]
        query = {"labelSelector": selector(daemonset), "fieldSelector": f"spec.nodeName={node}"}
        pods = self._list(f"/api/v1/namespaces/{namespace}/pods", params=query)
        return _plugin_pod(pods[0]) if pods else None

    def _log(self, plugin: Plugin) -> str | None:
        if plugin.pod is None:
            return None
        namespace = plugin.name.partition("/")[0]
        path = f"/api/v1/namespaces/{namespace}/pods/{plugin.pod.name}/log"
        try:
            lines = self._client.stream(
                path, params={"tailLines": _LOG_LINES}, idle_timeout=_LOG_TIMEOUT
            )
            return b"\n".join(lines).decode("utf-8", errors="replace")
        except KubeError as error:
            self.unreadable[f"log of {namespace}/{plugin.pod.name}"] = str(error)
            return None

    def _list(
        self, path: str, *, params: Mapping[str, str] | None = None, optional: bool = False
    ) -> list[Mapping[str, Any]] | None:
        try:
            items = self._client.list_all(path, type=msgspec.Raw, params=params).items
        except NotFound:
            if not optional:
                self.unreadable[path] = "the API server does not know it"
            return None
        except KubeError as error:
            self.unreadable[path] = str(error)
            return None
        return [mapping(msgspec.json.decode(item)) for item in items]


def _plugin_pod(pod: Mapping[str, Any]) -> PluginPod:
    status = mapping(pod.get("status"))
    containers = status.get("containerStatuses")
    told = [mapping(each) for each in containers] if isinstance(containers, list) else []
    waiting = [mapping(mapping(each.get("state")).get("waiting")) for each in told]
    return PluginPod(
        name=_name(pod),
        phase=str(status.get("phase", "")),
        ready=bool(told) and all(each.get("ready") is True for each in told),
        waiting=next((str(each["reason"]) for each in waiting if "reason" in each), ""),
    )


def _quantities(found: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: str(quantity) for name, quantity in (found or {}).items()}


def _name(item: Mapping[str, Any]) -> str:
    return str(mapping(item.get("metadata")).get("name", ""))
