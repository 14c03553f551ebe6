"""The extender's own metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extender.placement.ledger import Ledger
from service.metrics import LATENCY_BUCKETS


class Verb(StrEnum):
    """What the scheduler asks for; the values of the label `verb`."""

    FILTER = "filter"
    PRIORITIZE = "prioritize"
    BIND = "bind"
    PREEMPT = "preempt"


class Refusal(StrEnum):
    """Why a pod was not bound; the values of the label `reason`."""

    #: The node has no room any more: the scheduler chose without knowing of another pod's bind.
    FULL = "full"
    NOT_LEADING = "not_leading"
    #: The pod is gone, has ended, or is bound elsewhere.
    PLACED = "placed"
    #: The request of the pod cannot be understood or granted.
    DEMAND = "demand"
    #: The ConfigMap that the pod names belongs to another pod.
    DEVICE_LIST = "device_list"
    #: The API server refused.
    API = "api"
    #: The API server did not say whether the pod is bound.
    UNANSWERED = "unanswered"


class Preempted(StrEnum):
    """What came of a pod's need for GPUs of less important ones; the values of `outcome`."""

    EVICTED = "evicted"
    #: It is enough to wait for pods that are being deleted already.
    WAITING = "waiting"
    #: A PodDisruptionBudget forbids what would help.
    REFUSED = "refused"
    #: No pods of lower priority could make room.
    NOBODY = "nobody"
    #: The pod waits no more, or it is not sure that it could then be placed.
    SKIPPED = "skipped"
    #: The API server did not answer.
    FAILED = "failed"


class Metrics:
    """Counts and times what the scheduler asks for, in seconds; shows the ledger's size."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        snapshot: Callable[[], Ledger],
        epoch: Callable[[], int | None],
    ) -> None:
        duration = Histogram(
            "gpudetour_extender_duration_seconds",
            "Time from a read request to its answer",
            ["verb"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.paced = Histogram(
            "gpudetour_extender_paced_seconds",
            "Time that filter waited for binds under way, before its own time began",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        failures = Counter(
            "gpudetour_extender_failures",
            "Requests that were answered with an error",
            ["verb"],
            registry=registry,
        )
        self.duration = {verb: duration.labels(verb) for verb in Verb}
        self.failures = {verb: failures.labels(verb) for verb in Verb}
        self.binds = Counter("gpudetour_extender_binds", "Pods bound", registry=registry)
        refused = Counter(
            "gpudetour_extender_bind_refused",
            "Binds that were refused, by reason",
            ["reason"],
            registry=registry,
        )
        self.refused = {refusal: refused.labels(refusal) for refusal in Refusal}
        preempted = Counter(
            "gpudetour_extender_preemptions",
            "Pods for which evictions were considered, by outcome",
            ["outcome"],
            registry=registry,
        )
        self.preempted = {outcome: preempted.labels(outcome) for outcome in Preempted}
        self.evictions = Counter(
            "gpudetour_extender_evictions", "Pods evicted for others", registry=registry
        )
        registry.register(_State(snapshot, epoch))


class _State(Collector):
    """Gauges that are read when somebody looks, so that keeping them costs nothing."""

    def __init__(self, snapshot: Callable[[], Ledger], epoch: Callable[[], int | None]) -> None:
        self._snapshot = snapshot
        self._epoch = epoch

    def collect(self) -> Iterable[Metric]:
        ledger = self._snapshot()
        unclear = sum(len(state.unclear()) for state in ledger.nodes.flat().values())
        values = (
            ("leading", "1 while this replica serves the scheduler", self._epoch() is not None),
            ("nodes", "Nodes in the ledger", len(ledger.nodes)),
            ("pods", "GPU pods in the ledger, ended ones included", len(ledger.pods)),
            ("reservations", "Binds that the watch has not confirmed", len(ledger.reservations)),
            ("holds", "Nodes held for pods between filter and bind", len(ledger.holds)),
            ("unclear_pods", "Pods of which nobody can say what GPUs they hold", unclear),
        )
        for name, text, value in values:
            yield GaugeMetricFamily(f"gpudetour_extender_{name}", text, value=float(value))
