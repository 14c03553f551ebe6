"""The agent's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gpus.model import Health, NodeInventory, Path
from service.metrics import LATENCY_BUCKETS


class Metrics:
    """What the agent counts, on the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.gpus = Gauge(
            "gpudetour_node_gpus", "GPUs of this node by health", ["health"], registry=registry
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

    def show(self, inventory: NodeInventory | None, path: Path, *, held: int) -> None:
        """Set the gauges."""
        gpus = inventory.gpus if inventory is not None else ()
        for health in Health:
            self.gpus.labels(health).set(sum(gpu.health is health for gpu in gpus))
        for each in Path:
            self.path.labels(each).set(each is path)
        self.held.set(held)
