"""The extender's own metrics."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from itertools import chain

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extender.ledger_metrics import LedgerCollector
from extender.placement.ledger import Ledger
from extender.placement.reasons import Reason
from extender.placement.shortlist import Decision
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


#: Reasons by the text that the scheduler is told; of two that share one, the last stands for both.
_REASONS = {reason.text: reason.name.lower() for reason in Reason}


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
        self.conflicts = Counter(
            "gpudetour_extender_bind_conflicts",
            "Bindings that the API server refused because the pod was bound or changed already",
            registry=registry,
        )
        filtered = Counter(
            "gpudetour_extender_filtered",
            "Answers to filter: some node fits, or none does",
            ["result"],
            registry=registry,
        )
        self._filtered = {
            fits: filtered.labels("fits" if fits else "none") for fits in (True, False)
        }
        rejected = Counter(
            "gpudetour_extender_rejections",
            "Answers to filter without a node, by each reason that any node had",
            ["reason"],
            registry=registry,
        )
        self._rejected = {text: rejected.labels(name) for text, name in _REASONS.items()}
        self.ledger_age = Gauge(
            "gpudetour_extender_ledger_age_seconds",
            "Time since all that the ledger follows was last known to be current",
            registry=registry,
        )
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
        registry.register(LedgerCollector(snapshot, epoch))

    def decided(self, decision: Decision) -> None:
        """Count what filter answered."""
        self._filtered[bool(decision.nodes)].inc()
        if not decision.nodes:
            for text in set(chain(decision.busy.values(), decision.unfit.values())):
                self._rejected[text].inc()
