"""The agent's metrics: what it does, and what its GPUs are, who holds them and how busy they are.

At most `MOST_OF_A_GPU` series tell of one GPU. What a GPU is doing is read when somebody looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpus.model import DeviceId, Gpu, Health, NodeInventory, Path
from nodeagent.inventory.events import XidEvent
from nodeagent.inventory.health import kind_of
from nodeagent.inventory.standing import cause_of
from nodeagent.inventory.telemetry import Figures
from nodeagent.podresources.client import Holder
from service.metrics import LATENCY_BUCKETS

#: Series that one GPU may have, whatever happens to it.
MOST_OF_A_GPU = 40
#: Of these, containers that hold it (of one that is shared there may be hundreds) and kinds of
#: Xids that it reported; what is beyond is counted, not named.
_MOST_HOLDERS = 20
_MOST_XIDS = 8
_OTHER_XIDS = "other"

_GPU_LABELS = ("node", "uuid", "index", "product")
#: Metric, help text, and the figure that it shows.
_FIGURES: tuple[tuple[str, str, Callable[[Figures], float | None]], ...] = (
    (
        "gpudetour_gpu_utilization_ratio",
        "Share of the driver's last sample period in which a kernel ran, 0 to 1",
        lambda figures: figures.utilization,
    ),
    (
        "gpudetour_gpu_memory_used_bytes",
        "Memory that programs hold on the GPU",
        lambda figures: figures.memory_used_bytes,
    ),
    (
        "gpudetour_gpu_memory_total_bytes",
        "Memory of the GPU",
        lambda figures: figures.memory_total_bytes,
    ),
    (
        "gpudetour_gpu_temperature_celsius",
        "Temperature of the GPU",
        lambda figures: figures.temperature_celsius,
    ),
    (
        "gpudetour_gpu_power_watts",
        "Power that the GPU draws",
        lambda figures: figures.power_watts,
    ),
)

ReadFigures = Callable[[Sequence[DeviceId]], Mapping[DeviceId, Figures]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a round found. `given` are devices with the containers that hold them, `held` counts
    devices that pods hold, named or not; `served` is what the node condition says.
    """

    inventory: NodeInventory | None
    path: Path
    cause: str
    served: bool | None = None
    held: int = 0
    given: Collection[tuple[DeviceId, Holder]] = ()


class Metrics:
    """What the agent counts and shows, on the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry, *, node: str, figures: ReadFigures) -> None:
        """`figures` answers for the GPUs that it is asked for, in bounded time."""
        self._xids = Counter(
            "gpudetour_node_xids_total",
            "Xids that the driver reported, counted against a GPU or not",
            ["node", "uuid", "xid"],
            registry=registry,
        )
        self._node = node
        self._known_xids: defaultdict[str, set[str]] = defaultdict(set)
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
        self._state = _State(node, figures)
        registry.register(self._state)

    def note_xid(self, event: XidEvent) -> None:
        """Count an Xid; those that NVML could not attribute have an empty UUID."""
        known, xid = self._known_xids[event.uuid or ""], str(event.xid)
        if xid not in known and len(known) >= _MOST_XIDS - 1:
            xid = _OTHER_XIDS
        known.add(xid)
        self._xids.labels(self._node, event.uuid or "", xid).inc()

    def show(self, shown: Shown) -> None:
        """Replace what is shown."""
        self._state.shown = shown


class _State(Collector):
    """Gauges that are made when somebody looks, so that nothing has to be forgotten."""

    def __init__(self, node: str, figures: ReadFigures) -> None:
        self._node = node
        self._figures = figures
        self.shown: Shown | None = None

    def collect(self) -> Iterable[Metric]:
        shown = self.shown
        if shown is None:
            return
        inventory = shown.inventory
        gpus = inventory.gpus if inventory is not None else ()
        yield from _of_the_node(shown, gpus)
        yield _info(self._node, inventory, gpus)
        yield from _health(self._node, gpus)
        yield from _holders(self._node, gpus, shown.given)
        yield from self._present(gpus)

    def _present(self, gpus: Sequence[Gpu]) -> Iterator[Metric]:
        """What the GPUs are doing; those that do not answer are not asked."""
        asked = [gpu.uuid for gpu in gpus if gpu.health in (Health.HEALTHY, Health.FAULTY)]
        figures = self._figures(asked)
        for name, text, figure in _FIGURES:
            family = GaugeMetricFamily(name, text, labels=_GPU_LABELS)
            for gpu in gpus:
                found = figures.get(gpu.uuid)
                present = figure(found) if found is not None else None
                if present is not None:
                    family.add_metric(_labels(self._node, gpu), float(present))
            yield family


def _of_the_node(shown: Shown, gpus: Sequence[Gpu]) -> Iterator[Metric]:
    counted = GaugeMetricFamily(
        "gpudetour_node_gpus", "GPUs of this node by health", labels=["health"]
    )
    for health in Health:
        counted.add_metric([health], sum(gpu.health is health for gpu in gpus))
    yield counted
    withheld = len(shown.inventory.withheld) if shown.inventory is not None else 0
    yield GaugeMetricFamily(
        "gpudetour_node_gpus_withheld", "GPUs that are never given out", value=withheld
    )
    yield GaugeMetricFamily(
        "gpudetour_node_gpus_held", "Devices that pods of this node hold", value=shown.held
    )
    path = GaugeMetricFamily(
        "gpudetour_node_path", "1 for the path of this node now", labels=["path"]
    )
    for each in Path:
        path.add_metric([each], float(each is shown.path))
    yield path
    if shown.served is not None:
        served = GaugeMetricFamily(
            "gpudetour_node_gpus_served",
            "1 where new pods can get GPUs here, 0 where the node condition says why not",
            labels=["cause"],
        )
        served.add_metric([shown.cause], float(shown.served))
        yield served


def _info(node: str, inventory: NodeInventory | None, gpus: Sequence[Gpu]) -> Metric:
    info = GaugeMetricFamily(
        "gpudetour_gpu_info",
        "What each GPU is; always 1",
        labels=[*_GPU_LABELS, "pci_bus_id", "architecture", "driver_version", "source"],
    )
    for gpu in gpus:
        driver = (inventory.driver if inventory is not None else None) or ""
        source = inventory.source if inventory is not None else ""
        labels = [*_labels(node, gpu), gpu.bdf or "", gpu.architecture or "", driver, source]
        info.add_metric(labels, 1.0)
    return info


def _health(node: str, gpus: Sequence[Gpu]) -> Iterator[Metric]:
    health = GaugeMetricFamily(
        "gpudetour_gpu_health",
        "1 for what each GPU is now, and why",
        labels=[*_GPU_LABELS, "health", "reason"],
    )
    since = GaugeMetricFamily(
        "gpudetour_gpu_unhealthy_since_timestamp_seconds",
        "Since when a GPU is what it is; absent of healthy ones",
        labels=_GPU_LABELS,
    )
    for gpu in gpus:
        reason = kind_of(gpu.health, cause_of(gpu.health_reason))
        health.add_metric([*_labels(node, gpu), gpu.health, reason], 1.0)
        if gpu.health is not Health.HEALTHY and gpu.health_since is not None:
            since.add_metric(_labels(node, gpu), gpu.health_since.timestamp())
    yield health
    yield since


def _holders(
    node: str, gpus: Sequence[Gpu], given: Collection[tuple[DeviceId, Holder]]
) -> Iterator[Metric]:
    """Who holds what by name, and how many hold it.

    `uuid` is the GPU's own, as dcgm-exporter's label `UUID` has it, also where an instance of it
    is held; devices that the inventory does not know stand for themselves.
    """
    card = {device: gpu.uuid for gpu in gpus for device, _ in gpu.devices()}
    by_card: defaultdict[DeviceId, list[tuple[DeviceId, Holder]]] = defaultdict(list)
    for device, holder in given:
        by_card[card.get(device, device)].append((device, holder))
    info = GaugeMetricFamily(
        "gpudetour_gpu_assignment_info",
        f"Containers that hold a GPU or an instance of it, {_MOST_HOLDERS} of a GPU at most",
        labels=["node", "uuid", "device", "namespace", "pod", "container"],
    )
    count = GaugeMetricFamily(
        "gpudetour_gpu_holders",
        "Pods that hold a GPU or a part of it, as far as they are known by name",
        labels=["node", "uuid"],
    )
    for uuid in {*(gpu.uuid for gpu in gpus), *by_card}:
        held = sorted(by_card[uuid], key=lambda each: (each[0], *_name(each[1])))
        for device, holder in held[:_MOST_HOLDERS]:
            info.add_metric([node, uuid, device, *_name(holder)], 1.0)
        pods = {(holder.namespace, holder.pod) for _, holder in held}
        count.add_metric([node, uuid], float(len(pods)))
    yield info
    yield count


def _name(holder: Holder) -> tuple[str, str, str]:
    return holder.namespace, holder.pod, holder.container


def _labels(node: str, gpu: Gpu) -> list[str]:
    return [node, gpu.uuid, str(gpu.index), gpu.product or ""]
