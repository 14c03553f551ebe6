"""What the ledger says of the fleet, as metrics made when somebody looks: keeping them is free.

Only the replica that leads knows the pods, so only it tells what is free and who waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extender.placement.ledger import Ledger
from extender.placement.state import NodeState
from gpus.model import GPU_MEMORY_RESOURCE, Path

#: What a node is counted under that serves by no path.
_NO_PATH = "none"
#: Resources that are told apart; of more, which no cluster has, the rest is left out.
_MOST_RESOURCES = 40


class LedgerCollector(Collector):
    """Reads the ledger of the moment; `epoch` tells in which epoch we lead, or None."""

    def __init__(self, snapshot: Callable[[], Ledger], epoch: Callable[[], int | None]) -> None:
        self._snapshot = snapshot
        self._epoch = epoch

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges; a scrape of 1,000 nodes and 8,000 pods takes milliseconds."""
        ledger, epoch = self._snapshot(), self._epoch()
        states = ledger.nodes.flat()
        unclear = sum(len(state.unclear()) for state in states.values())
        values = (
            ("leading", "1 while this replica serves the scheduler", epoch is not None),
            ("nodes", "Nodes in the ledger", len(states)),
            ("pods", "GPU pods in the ledger, ended ones included", len(ledger.pods)),
            ("reservations", "Binds that the watch has not confirmed", len(ledger.reservations)),
            ("holds", "Nodes held for pods between filter and bind", len(ledger.holds)),
            ("unclear_pods", "Pods of which nobody can say what GPUs they hold", unclear),
        )
        for name, text, value in values:
            yield GaugeMetricFamily(f"gpudetour_extender_{name}", text, value=float(value))
        yield _paths(states.values())
        if epoch is not None:
            yield GaugeMetricFamily(
                "gpudetour_extender_epoch", "Epoch of this leadership", value=float(epoch)
            )
            yield _devices(states.values())
            yield from _waiting(ledger)


def _paths(states: Iterable[NodeState]) -> Metric:
    counts = Counter(state.path for state in states)
    family = GaugeMetricFamily(
        "gpudetour_extender_path_nodes",
        "Nodes in the ledger by the path that serves their GPUs; none: no GPUs, or no agent",
        labels=["path"],
    )
    for path in (*Path, None):
        family.add_metric([path or _NO_PATH], counts[path])
    return family


def _devices(states: Iterable[NodeState]) -> Metric:
    counts: Counter[tuple[str, str]] = Counter()
    for state in states:
        if state.facts is None:
            continue
        for kind, of_kind in (
            ("total", state.facts.total),
            ("healthy", state.facts.healthy),
            ("free", state.free),
        ):
            for resource, count in of_kind.items():
                counts[resource, kind] += count
    family = GaugeMetricFamily(
        "gpudetour_extender_devices",
        "GPUs and instances of nodes that serve: all, those that are healthy, those that are free",
        labels=["resource", "state"],
    )
    names = sorted({name for name, _ in counts} - {GPU_MEMORY_RESOURCE})
    for name in names[:_MOST_RESOURCES]:
        for kind in ("total", "healthy", "free"):
            family.add_metric([name, kind], counts[name, kind])
    return family


def _waiting(ledger: Ledger) -> Iterator[Metric]:
    created = [pod.created for pod in ledger.pods.values() if pod.waits and pod.demand is not None]
    yield GaugeMetricFamily(
        "gpudetour_extender_waiting_pods", "GPU pods that are on no node yet", value=len(created)
    )
    oldest = GaugeMetricFamily(
        "gpudetour_extender_oldest_waiting_pod_timestamp_seconds",
        "When the pod was created that waits longest; absent where none waits",
    )
    times = [text for text in created if text]
    if times:
        # Times as the API server writes them sort as text.
        oldest.add_metric([], datetime.fromisoformat(min(times)).timestamp())
    yield oldest
