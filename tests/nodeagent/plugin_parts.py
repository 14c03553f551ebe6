"""Inventories and running plugins that several tests of the device plugin use."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from gpus.model import DeviceId, Gpu, Health, Link, NodeInventory, ResourceName, Source
from nodeagent.deviceplugin.allocation import DeviceList, Handover
from nodeagent.deviceplugin.devices import Offer, Offering, offers
from nodeagent.deviceplugin.plugins import PluginSet

GPU = "nvidia.com/gpu"


def node(count: int = 4) -> NodeInventory:
    """GPUs in pairs: 0-1 and 2-3 are joined by NVLink; one NUMA node a pair."""

    def link(index: int) -> tuple[Link, ...]:
        peer = index ^ 1
        return (Link(peer=DeviceId(f"GPU-{peer}"), nvlinks=4),) if peer < count else ()

    gpus = tuple(
        Gpu(uuid=DeviceId(f"GPU-{i}"), index=i, minor=i, numa_node=i // 2, links=link(i))
        for i in range(count)
    )
    return NodeInventory(source=Source.NVML, gpus=gpus)


def with_health(inventory: NodeInventory, index: int, health: Health) -> NodeInventory:
    """The same machine with one GPU in another state."""
    gpus = tuple(
        replace(gpu, health=health) if gpu.index == index else gpu for gpu in inventory.gpus
    )
    return replace(inventory, gpus=gpus)


def offered(
    inventory: NodeInventory, offering: Offering | None = None
) -> dict[ResourceName, Offer]:
    """What a plugin has to offer of a machine, by default as agents do."""
    return offers(inventory, offering or Offering())


def env_handover() -> Handover:
    return Handover(device_list=DeviceList.ENV)


@contextmanager
def running(folder: Path, *, patience: float = 60) -> Iterator[PluginSet]:
    """A plugin set on its thread, ended at the end."""
    plugins = PluginSet(folder, handover=env_handover, patience=patience, on_change=lambda: None)
    stop = threading.Event()
    thread = threading.Thread(target=plugins.run, args=(stop,))
    thread.start()
    try:
        yield plugins
    finally:
        stop.set()
        plugins.wake()
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def babbling(path: Path) -> Iterator[None]:
    """A server on a socket that answers everybody in a language that is not gRPC."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=_babble, args=(server,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


def _babble(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
