"""What a pod asks for, counted as Kubernetes counts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gpus.model import GPU_RESOURCE, MIG_RESOURCE_PREFIX, ResourceName
from gpus.quantity import QuantityError, whole
from kube.objects import Container, Pod

#: What NVIDIA's plugin calls time-sliced GPUs with `renameByDefault`.
SHARED_GPU_RESOURCE = ResourceName("nvidia.com/gpu.shared")
#: A share of one GPU, in bytes of its memory.
GPU_MEMORY_RESOURCE = ResourceName("gpudetour.io/gpu-memory")

#: More devices than any node has; keeps sums small on hostile input.
MAX_COUNT = 4096


class ContainerKind(StrEnum):
    """When a container runs, which decides whose devices it may share."""

    INIT = "init"
    SIDECAR = "sidecar"
    APP = "app"


class DemandError(ValueError):
    """The pod asks for something that cannot be granted anywhere; `faults` holds every reason."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerDemand:
    """How many devices of each resource one container asks for; zero counts are left out."""

    name: str
    kind: ContainerKind
    counts: Mapping[ResourceName, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a pod asks for.

    `containers` lists only those that ask for something, init containers and sidecars first, in
    the order in which kubelet starts them. `totals` is what the whole pod needs at its peak.
    """

    containers: tuple[ContainerDemand, ...]
    totals: Mapping[ResourceName, int]


def is_gpu_resource(name: str) -> bool:
    """Tell whether a resource name stands for GPUs, parts of GPUs, or shares of them."""
    return name in (
        GPU_RESOURCE,
        SHARED_GPU_RESOURCE,
        GPU_MEMORY_RESOURCE,
    ) or name.startswith(MIG_RESOURCE_PREFIX)


def demand_of(pod: Pod) -> Demand | None:
    """Return what a pod asks for, or None when it asks for no GPU.

    Raises `DemandError` with every fault when a request cannot be understood or granted.
    """
    faults: list[str] = []
    containers: list[ContainerDemand] = []
    for container, kind in _containers(pod):
        counts = _counts(container, faults)
        if counts:
            containers.append(ContainerDemand(name=container.name, kind=kind, counts=counts))
    if faults:
        raise DemandError(tuple(faults))
    if not containers:
        return None
    return Demand(containers=tuple(containers), totals=_totals(containers))


def _containers(pod: Pod) -> Iterator[tuple[Container, ContainerKind]]:
    for container in pod.spec.init_containers or ():
        sidecar = container.restart_policy == "Always"
        yield container, ContainerKind.SIDECAR if sidecar else ContainerKind.INIT
    for container in pod.spec.containers or ():
        yield container, ContainerKind.APP


def _counts(container: Container, faults: list[str]) -> dict[ResourceName, int]:
    resources = container.resources
    if resources is None:
        return {}
    # For extended resources the API server demands limits and lets requests only repeat them
    # (core/validation ValidateResourceRequirements), so limits speak for both.
    asked = {**(resources.requests or {}), **(resources.limits or {})}
    counts: dict[ResourceName, int] = {}
    for name, quantity in asked.items():
        if not is_gpu_resource(name):
            continue
        try:
            count = whole(quantity)
        except QuantityError as error:
            faults.append(f"container {container.name!r}, {name}: {error}")
            continue
        if fault := _fault(name, count):
            faults.append(f"container {container.name!r}, {name}: {fault}")
        elif count:
            counts[ResourceName(name)] = count
    return counts


def _fault(name: str, count: int) -> str | None:
    if name == GPU_MEMORY_RESOURCE and count:
        return "shares of a GPU are not served by this release; ask for nvidia.com/gpu instead"
    if count > MAX_COUNT:
        return f"{count} devices are more than any node has"
    return None


def _totals(containers: list[ContainerDemand]) -> dict[ResourceName, int]:
    """Peak need: component-helpers/resource/helpers.go AggregateContainerRequests (KEP-753).

    Sidecars run on beside everything that starts after them; a plain init container runs alone
    but for the sidecars before it; app containers run together with all sidecars.
    """
    names = {name for container in containers for name in container.counts}
    return {name: _peak(containers, name) for name in sorted(names)}


def _peak(containers: list[ContainerDemand], name: ResourceName) -> int:
    sidecars = apps = peak = 0
    for container in containers:
        count = container.counts.get(name, 0)
        match container.kind:
            case ContainerKind.SIDECAR:
                sidecars += count
                peak = max(peak, sidecars)
            case ContainerKind.INIT:
                peak = max(peak, sidecars + count)
            case ContainerKind.APP:
                apps += count
    return max(peak, sidecars + apps)
