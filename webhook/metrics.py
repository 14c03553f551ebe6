"""The webhook's own metrics."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.metrics import LATENCY_BUCKETS


class Result(StrEnum):
    """How a request ended; the values of the label `result`."""

    MUTATED = "mutated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    BAD_REQUEST = "bad_request"
    NOT_READY = "not_ready"
    ERROR = "error"


class Metrics:
    """Counts requests by result and measures how long answers take, in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "gpudetour_webhook_requests",
            "Admission requests by how they ended",
            ["result"],
            registry=registry,
        )
        self.duration = Histogram(
            "gpudetour_webhook_duration_seconds",
            "Time from a read request to its answer",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._by_result = {result: requests.labels(result) for result in Result}

    def count(self, result: Result) -> None:
        """Count one request."""
        self._by_result[result].inc()
