"""`python -m nodeagent`: settings, threads and the loop, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import structlog

from gpus.annotations import GPU_SELECTOR
from kube.client import Client
from kube.connection import NoConnection, connect
from kube.errors import KubeError
from kube.events import EventRecorder
from kube.heartbeat import Heartbeat
from kube.objects import OwnerReference, Pod
from kube.reflector import Reflector
from nodeagent.agent import Agent, HandoverCell, NodeView, Parts
from nodeagent.deviceplugin.allocation import DeviceList
from nodeagent.deviceplugin.cdi import CdiSpec
from nodeagent.deviceplugin.plugins import PluginSet
from nodeagent.deviceplugin.runtime import containerd_configs, supports_cdi
from nodeagent.deviceplugin.sockets import SocketWatch
from nodeagent.inventory.events import XidEvent, XidWatcher
from nodeagent.inventory.nvml import NvmlSource
from nodeagent.inventory.watchdog import WatchedSource
from nodeagent.metrics import Metrics
from nodeagent.node import FIELD_MANAGER, OwnNode, owner
from nodeagent.observer import Observer
from nodeagent.podresources.client import PodResources
from nodeagent.pods import NodePods
from nodeagent.publisher import Publisher
from nodeagent.reader import InventoryReader
from nodeagent.settings import OPTIONS, Settings
from service.command import CONTEXT, launch, with_options
from service.lifecycle import Lifecycle
from service.metrics import new_registry
from service.side_port import SidePort

#: Seconds that one read of all GPUs may take before it counts as hanging.
_READ_DEADLINE = 5.0
#: Seconds without a finished round after which the agent is not ready.
_STALE = 60.0

log = structlog.get_logger()


@click.command(context_settings=CONTEXT)
@with_options(OPTIONS)
def main(**values: Any) -> None:
    """Tell the cluster which GPUs this node has, and serve them.

    Every option can be given as GPUDETOUR_<OPTION> in the environment too.
    """
    launch(lambda: Settings(**values), run, faults=(NoConnection, OSError))


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT."""
    lifecycle = Lifecycle()
    lifecycle.install_signal_handlers()
    client = Client(connect(settings.kubeconfig))
    registry = new_registry("node-agent")
    wake = threading.Event()
    watches = _Watches(client, settings, on_change=wake.set)
    gpus = _Gpus(settings, on_change=wake.set)
    handover = HandoverCell()
    plugins = PluginSet(
        Path(settings.device_plugin_dir),
        handover=handover,
        patience=settings.registration_patience,
        on_change=wake.set,
    )
    events = EventRecorder(client, component=FIELD_MANAGER, instance=settings.node_name)
    parts = Parts(
        view=watches.view,
        reader=gpus.reader,
        observer=_observer(settings, watches.pods),
        plugins=plugins,
        cdi=CdiSpec(Path(settings.cdi_dir), settings.roots()),
        publisher=Publisher(client, settings.node_name),
        events=events,
        metrics=Metrics(registry),
        known=lambda: watches.synced() and gpus.reader.tried.is_set(),
        device_list=_device_list(settings),
    )
    agent = Agent(parts, handover=handover, wake=wake, interval=settings.interval)
    side_port = SidePort(
        settings.side_host,
        settings.side_port,
        registry=registry,
        ready=lambda: _not_ready(agent, time.monotonic()),
    )
    side_port.start()
    watches.spawn(lifecycle)
    gpus.spawn(lifecycle)
    sockets = SocketWatch(Path(settings.device_plugin_dir), wake.set)
    lifecycle.spawn("sockets", sockets.run)
    lifecycle.spawn("device-plugins", plugins.run, wake=plugins.wake)
    lifecycle.spawn("events", events.run)
    lifecycle.spawn("heartbeat", _heartbeat(client, settings, watches.view).run)
    lifecycle.spawn("agent", agent.run, wake=wake.set)
    lifecycle.wait()
    lifecycle.shutdown()
    side_port.stop()


class _Watches:
    """The own Node and its GPU pods, as the API server tells of them."""

    def __init__(
        self, client: Client, settings: Settings, *, on_change: Callable[[], None]
    ) -> None:
        self.view = NodeView(on_change)
        self.pods = NodePods(on_change)
        self._nodes: Reflector[OwnNode] = Reflector(
            client,
            "/api/v1/nodes",
            type=OwnNode,
            params={"fieldSelector": f"metadata.name={settings.node_name}"},
            on_event=self.view.on_event,
        )
        self._pods: Reflector[Pod] = Reflector(
            client,
            "/api/v1/pods",
            type=Pod,
            params={
                "fieldSelector": f"spec.nodeName={settings.node_name}",
                "labelSelector": GPU_SELECTOR,
            },
            on_event=self.pods.on_event,
        )

    def synced(self) -> bool:
        return self._nodes.synced.is_set() and self._pods.synced.is_set()

    def spawn(self, lifecycle: Lifecycle) -> None:
        lifecycle.spawn("node", self._nodes.run, wake=self._nodes.close)
        lifecycle.spawn("pods", self._pods.run, wake=self._pods.close)


class _Gpus:
    """The GPUs, as NVML tells of them."""

    def __init__(self, settings: Settings, *, on_change: Callable[[], None]) -> None:
        self._source = NvmlSource(Path(settings.driver_root))
        self._xids = XidWatcher(self._source.session, self._on_xid)
        watched = WatchedSource(
            self._source, deadline=_READ_DEADLINE, now=lambda: datetime.now(UTC)
        )
        self.reader = InventoryReader(watched, interval=settings.interval, on_change=on_change)

    def spawn(self, lifecycle: Lifecycle) -> None:
        lifecycle.spawn("inventory", self.reader.run, wake=self.reader.wake)
        lifecycle.spawn("xid", self._xids.run)

    def _on_xid(self, event: XidEvent) -> None:
        self._source.report(event)
        self.reader.wake()


def _observer(settings: Settings, pods: NodePods) -> Observer:
    return Observer(
        Path(settings.device_plugin_dir),
        PodResources(Path(settings.kubelet_dir)),
        pods,
        plugin_allowed=settings.plugin_allowed(),
        patience=settings.registration_patience,
    )


def _heartbeat(client: Client, settings: Settings, view: NodeView) -> Heartbeat:
    return Heartbeat(
        client,
        namespace=settings.namespace,
        name=settings.node_name,
        identity=settings.node_name,
        owner=lambda: _owner(view, settings.node_name),
    )


def _owner(view: NodeView, name: str) -> OwnerReference:
    if view.node is None:
        raise KubeError(f"there is no Node {name!r} yet; is --node-name right?")
    return owner(view.node)


def _device_list(settings: Settings) -> Callable[[OwnNode], DeviceList]:
    fixed = settings.fixed_device_list()

    def choose(node: OwnNode) -> DeviceList:
        if fixed is not None:
            return fixed
        runtime = node.status.node_info.container_runtime_version
        configs = containerd_configs(Path(settings.host_root))
        cdi = supports_cdi(runtime, containerd_configs=configs)
        return DeviceList.CDI if cdi else DeviceList.ENV

    return choose


def _not_ready(agent: Agent, now: float) -> str | None:
    if agent.finished_at is None:
        return "the Node, its pods or its GPUs have not been read yet"
    age = now - agent.finished_at
    return None if age < _STALE else f"the Node was last brought up to date {age:.0f} s ago"


if __name__ == "__main__":
    main()
