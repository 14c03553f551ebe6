"""Metrics of the process that keeps certificates."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from certs.issue import Issued
from certs.state import Why
from service.certificates import Expiry


class Metrics:
    """What to alert on: a certificate near its end, and passes that fail."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._expiry = Expiry(registry)
        self._issued = Counter(
            "gpudetour_certificates_issued_total",
            "Certificates that this process issued, and why",
            ["name", "why"],
            registry=registry,
        )
        self._passes = Counter(
            "gpudetour_certificate_passes_total",
            "Looks at all certificates: changed something, kept all, lost to another, or failed",
            ["result"],
            registry=registry,
        )
        for result in ("changed", "kept", "conflict", "failed"):
            self._passes.labels(result)
        self._ahead = Gauge(
            "gpudetour_clock_ahead_seconds",
            "How far the clock of this process is ahead of the API server's",
            registry=registry,
        )

    def passed(self, result: str) -> None:
        """Count one pass."""
        self._passes.labels(result).inc()

    def clock_ahead(self, seconds: float) -> None:
        """Tell what the clock is worth."""
        self._ahead.set(seconds)

    def seen(self, issued: Issued) -> None:
        """Tell until when everything is valid, and what was issued."""
        for outcome in issued.outcomes:
            self._expiry.tell(outcome.name, outcome.not_after.timestamp())
            if outcome.why not in (Why.KEPT, Why.WAITING):
                self._issued.labels(outcome.name, outcome.why.value).inc()
