"""What a scrape costs where the fleet is large: the extender's whole ledger, and an agent's GPUs.

Both answer through the port that Prometheus asks, and beside them the client library alone, with as
many plain gauges. The ledger is filled by the code that the watches call; no cluster is needed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import urllib3
from prometheus_client import CollectorRegistry, Gauge

from extender.cluster import Cluster
from extender.metrics import Metrics as ExtenderMetrics
from gpus.model import DeviceId, NodeInventory
from gpus.model import Path as GpuPath
from kube.objects import Node, Pod
from kube.reflector import Event, EventKind
from localcluster.api import Object
from localcluster.bench import fleet
from localcluster.nvml.install import install
from nodeagent.inventory.attempts import Patience
from nodeagent.inventory.nvml import NvmlSource
from nodeagent.inventory.telemetry import FRESH, Telemetry
from nodeagent.inventory.xids import HealthPolicy
from nodeagent.metrics import Metrics as AgentMetrics
from nodeagent.metrics import Shown
from nodeagent.podresources.client import Holder
from service.metrics import new_registry
from service.side_port import SidePort

NODES, PODS = 1000, 8000
_SCRAPES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """One process's scrapes: how many series, how large, and the milliseconds of each."""

    what: str
    series: int
    size: int
    times: tuple[float, ...]

    @property
    def median(self) -> float:
        """Milliseconds of the scrape in the middle."""
        return statistics.median(self.times)

    @property
    def worst(self) -> float:
        """Milliseconds of the slowest one."""
        return max(self.times)


def measure_scrapes(scrapes: int = _SCRAPES) -> list[Scraped]:
    """Scrape extender and agent, and after each the client library with as many series."""
    found = []
    with _extender() as registry:
        found.append(_scraped("extender, 1,000 nodes, 8,000 pods", registry, scrapes))
    with _agent() as (registry, renew):
        found.append(_scraped("agent, 8 H100, all held", registry, scrapes, before=renew))
    bare = [
        _scraped(f"client library alone, {each.series} series", _gauges(each.series), scrapes)
        for each in found
    ]
    return [found[0], bare[0], found[1], bare[1]]


def _scraped(
    what: str,
    registry: CollectorRegistry,
    scrapes: int,
    *,
    before: Callable[[], None] = lambda: None,
) -> Scraped:
    side = SidePort("127.0.0.1", 0, registry=registry, ready=lambda: None)
    url = f"http://127.0.0.1:{side.start()}/metrics"
    times, body = [], b""
    try:
        with urllib3.PoolManager(retries=False, timeout=30.0) as pool:
            for _ in range(scrapes):
                before()
                began = time.perf_counter()
                body = pool.request("GET", url).data
                times.append((time.perf_counter() - began) * 1000)
    finally:
        side.stop()
    series = sum(1 for line in body.splitlines() if line and not line.startswith(b"#"))
    return Scraped(what=what, series=series, size=len(body), times=tuple(times))


@contextmanager
def _extender() -> Iterator[CollectorRegistry]:
    cluster = Cluster()
    names = fleet.node_names(NODES)
    for name in names:
        node = msgspec.convert(fleet.node(name, path=GpuPath.ANNOTATION), Node)
        cluster.on_node(Event(EventKind.ADDED, node))
    for number in range(PODS):
        holder = fleet.holder(
            f"pod-{number}",
            names[number // fleet.GPUS],
            [number % fleet.GPUS],
            path=GpuPath.ANNOTATION,
        )
        cluster.on_pod(Event(EventKind.ADDED, _pod(holder, number)), listed=True)
    registry = new_registry("extender")
    ExtenderMetrics(registry, snapshot=cluster.snapshot, epoch=lambda: 1)
    yield registry


def _pod(item: Object, number: int) -> Pod:
    item["metadata"] |= {"uid": f"uid-{number}", "namespace": "default"}
    return msgspec.convert(item, Pod)


@contextmanager
def _agent() -> Iterator[tuple[CollectorRegistry, Callable[[], None]]]:
    with TemporaryDirectory(prefix="gpudetour-scrape") as folder:
        machine = install(Path(folder), "8x-h100", node="node1")
        source = NvmlSource(Path(folder), policy=HealthPolicy(), patience=Patience())
        survey = source.survey()
        now = [0.0]
        # Each scrape asks NVML anew: that is what it costs.
        telemetry = Telemetry(source.session, clock=lambda: now[0])
        registry = new_registry("node-agent")
        metrics = AgentMetrics(registry, node="node1", figures=telemetry.read)
        gpus = tuple(sighting.gpu for sighting in survey.sightings)
        metrics.show(
            Shown(
                inventory=NodeInventory(source=survey.source, driver=survey.driver, gpus=gpus),
                path=GpuPath.PLUGIN,
                cause="OwnDevicePlugin",
                served=True,
                held=len(gpus),
                given={
                    (DeviceId(uuid), Holder(namespace="ml", pod=f"pod-{n}", container="main"))
                    for n, uuid in enumerate(machine.uuids)
                },
            )
        )

        def renew() -> None:
            now[0] += FRESH

        try:
            yield registry, renew
        finally:
            source.close()


def _gauges(count: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    gauge = Gauge("bare", "As many series of the client library alone", ["n"], registry=registry)
    for number in range(count):
        gauge.labels(str(number)).set(number)
    return registry
