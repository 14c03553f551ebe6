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
from nodeagent.departure import Departure
from nodeagent.deviceplugin.cdi import CdiSpec
from nodeagent.deviceplugin.configfile import PluginConfig
from nodeagent.deviceplugin.plugins import PluginSet
from nodeagent.deviceplugin.preparation import Preparation, Ways
from nodeagent.deviceplugin.runtime import (
    Runtime,
    containerd_configs,
    obstacle_to_cdi,
    reads_variable,
)
from nodeagent.deviceplugin.sockets import SocketWatch
from nodeagent.dra import DraWatch
from nodeagent.inventory.standing import Moment
from nodeagent.metrics import Metrics
from nodeagent.node import FIELD_MANAGER, OwnNode, owner
from nodeagent.observer import Choices, Observer
from nodeagent.podresources.client import PodResources
from nodeagent.pods import NodePods
from nodeagent.publisher import Publisher
from nodeagent.settings import OPTIONS, Settings
from nodeagent.watching import GpuWatch
from service.command import CONTEXT, launch, with_options
from service.lifecycle import Lifecycle
from service.metrics import new_registry
from service.side_port import SidePort

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
    config = _plugin_config(settings)
    client = Client(connect(settings.kubeconfig))
    registry = new_registry("node-agent")
    wake = threading.Event()
    watches = _Watches(client, settings, on_change=wake.set)
    gpus = GpuWatch(
        Path(settings.driver_root),
        rules=settings.rules(),
        on_change=wake.set,
        now=lambda: Moment(time.monotonic(), datetime.now(UTC)),
    )
    metrics = Metrics(registry, node=settings.node_name, figures=gpus.telemetry.read)
    dra = DraWatch(client, settings.node_name, on_change=wake.set)
    handover = HandoverCell()
    plugins = PluginSet(
        Path(settings.device_plugin_dir),
        handover=handover,
        patience=settings.registration_patience,
        on_change=wake.set,
    )
    events = EventRecorder(client, component=FIELD_MANAGER, instance=settings.node_name)
    cdi = CdiSpec(Path(settings.cdi_dir), settings.roots())
    parts = Parts(
        view=watches.view,
        reader=gpus.reader,
        observer=_observer(settings, config, watches.pods, dra),
        plugins=plugins,
        preparation=Preparation(cdi, settings.roots(), pass_device_nodes=config.pass_device_nodes),
        publisher=Publisher(client, settings.node_name),
        events=events,
        metrics=metrics,
        known=lambda: watches.synced() and gpus.reader.tried.is_set() and dra.known(),
        ways=_ways(settings, config),
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
    gpus.spawn(lifecycle, on_xid=metrics.note_xid)
    lifecycle.spawn("dra", dra.run)
    sockets = SocketWatch(Path(settings.device_plugin_dir), wake.set)
    lifecycle.spawn("sockets", sockets.run)
    lifecycle.spawn("device-plugins", plugins.run, wake=plugins.wake)
    lifecycle.spawn("events", events.run)
    lifecycle.spawn("heartbeat", _heartbeat(client, settings, watches.view).run)
    lifecycle.spawn("agent", agent.run, wake=wake.set)
    departure = Departure(client, settings.home(), cdi=cdi)
    lifecycle.spawn("departure", departure.run)
    lifecycle.wait()
    lifecycle.shutdown()
    departure.leave(settings.node_name)
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


def _plugin_config(settings: Settings) -> PluginConfig:
    config = settings.plugin_config()
    if config.no_effect:
        log.info("settings of the file that change nothing here", settings=config.no_effect)
    return config


def _observer(settings: Settings, config: PluginConfig, pods: NodePods, dra: DraWatch) -> Observer:
    return Observer(
        Path(settings.device_plugin_dir),
        PodResources(Path(settings.kubelet_dir)),
        pods,
        choices=Choices(
            plugin_allowed=settings.plugin_allowed(),
            patience=settings.registration_patience,
            offering=config.offering,
        ),
        dra=dra.served,
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


def _ways(settings: Settings, config: PluginConfig) -> Callable[[OwnNode], Ways]:
    folder = settings.roots().on_host(Path(settings.cdi_dir))

    def choose(node: OwnNode) -> Ways:
        info = node.status.node_info
        runtime = Runtime(
            runtime_version=info.container_runtime_version,
            kubelet_version=info.kubelet_version,
            containerd_configs=tuple(containerd_configs(Path(settings.host_root))),
        )
        return Ways(
            no_cdi=obstacle_to_cdi(runtime, cdi_folder=folder),
            variable=reads_variable(runtime),
            forced=config.device_list,
        )

    return choose


def _not_ready(agent: Agent, now: float) -> str | None:
    if agent.finished_at is None:
        return "the Node, its pods or its GPUs have not been read yet"
    age = now - agent.finished_at
    return None if age < _STALE else f"the Node was last brought up to date {age:.0f} s ago"


if __name__ == "__main__":
    main()
