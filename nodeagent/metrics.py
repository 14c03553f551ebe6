"""The agent's metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gpus.model import Gpu, Health, NodeInventory, Path
from nodeagent.inventory.events import XidEvent
from service.metrics import LATENCY_BUCKETS


class Metrics:
    """What the agent counts, on the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.gpus = Gauge(
            "gpudetour_node_gpus", "GPUs of this node by health", ["health"], registry=registry
        )
        self.gpu_health = Gauge(
            "gpudetour_node_gpu_health",
            "1 for what each GPU of this node is",
            ["uuid", "product", "health"],
            registry=registry,
        )
        self._shown: set[tuple[str, str]] = set()
        self.withheld = Gauge(
            "gpudetour_node_gpus_withheld", "GPUs that are never given out", registry=registry
        )
        self.xids = Counter(
            "gpudetour_node_xids_total",
            "Xids that the driver reported, counted against a GPU or not",
            ["uuid", "xid"],
            registry=registry,
        )
        self.path = Gauge(
            "gpudetour_node_path", "1 for the path of this node now", ["path"], registry=registry
        )
        self.held = Gauge(
            "gpudetour_node_gpus_held", "Devices that kubelet gave to pods", registry=registry
        )
        self.writes = Counter(
            "gpudetour_node_writes_total", "Writes on the own Node", registry=registry
        )
        self.failures = Counter(
            "gpudetour_node_failed_rounds_total",
            "Rounds that could not be finished, as when the API server refuses",
            registry=registry,
        )
        self.rounds = Histogram(
            "gpudetour_node_round_seconds",
            "Time from looking to having published",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )

    def note_xid(self, event: XidEvent) -> None:
        """Count an Xid; those that NVML could not attribute have an empty UUID."""
        self.xids.labels(event.uuid or "", str(event.xid)).inc()

    def show(self, inventory: NodeInventory | None, path: Path, *, held: int) -> None:
        """Set the gauges."""
        gpus = inventory.gpus if inventory is not None else ()
        for health in Health:
            self.gpus.labels(health).set(sum(gpu.health is health for gpu in gpus))
        self._show_each(gpus)
        self.withheld.set(len(inventory.withheld) if inventory is not None else 0)
        for each in Path:
            self.path.labels(each).set(each is path)
        self.held.set(held)

    def _show_each(self, gpus: Iterable[Gpu]) -> None:
        """Set the gauges of each GPU, and forget those of GPUs that are gone."""
        shown = {(gpu.uuid, gpu.product or ""): gpu.health for gpu in gpus}
        for stale in self._shown - shown.keys():
            for health in Health:
                self.gpu_health.remove(*stale, health)
        for (uuid, product), present in shown.items():
            for health in Health:
                self.gpu_health.labels(uuid, product, health).set(health is present)
        self._shown = set(shown)
