"""What the metrics of all components share: the registry, its standard collectors, buckets."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Info, ProcessCollector

#: Seconds; from an in-memory answer to kube-scheduler's and the API server's patience.
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip


def new_registry(component: str) -> CollectorRegistry:
    """Return a registry with the metrics of this process and `gpudetour_build_info`."""
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
