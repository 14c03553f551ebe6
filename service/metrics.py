"""What the metrics of all components share: the registry, its standard collectors, buckets."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

#: Seconds; from an in-memory answer to kube-scheduler's and the API server's patience, close
#: enough to each other that a quantile read between two of them means something.
LATENCY_BUCKETS = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03,
    0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0,
)  # fmt: skip


def new_registry(component: str) -> CollectorRegistry:
    """Return a registry with the metrics of this process and `gpudetour_build_info`."""
    # When each counter was made would be as many series again, and nobody asks for them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Info("gpudetour_build", "Release and component of this process", registry=registry)
    build.info({"component": component, "version": release()})
    return registry


def release() -> str:
    """Return the version of the installed distribution; run from a bare checkout, "unknown"."""
    try:
        return version("gpudetour")
    except PackageNotFoundError:
        return "unknown"
