"""What a pod asks for, counted as Kubernetes counts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gpus.contradictions import contradictions
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    GPU_RESOURCE,
    MIG_RESOURCE_PREFIX,
    SHARED_GPU_RESOURCE,
    ResourceName,
)
from gpus.quantity import QuantityError, whole
from gpus.wishes import Wishes, memory_fault, read_wishes
from kube.objects import Container, Pod, Quantity

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
    """How much of each resource one container asks for; what it asks zero of is left out."""

    name: str
    kind: ContainerKind
    counts: Mapping[ResourceName, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a pod asks for.

    `containers` lists only those that ask for something, init containers and sidecars first, in
    the order in which kubelet starts them. `totals` is what the whole pod needs at its peak:
    devices, or bytes of the memory of one GPU for `GPU_MEMORY_RESOURCE`.
    """

    containers: tuple[ContainerDemand, ...]
    totals: Mapping[ResourceName, int]
    wishes: Wishes = field(default_factory=Wishes)


def is_gpu_resource(name: str) -> bool:
    """Tell whether a resource name stands for GPUs, parts of GPUs, or shares of them."""
    return name in (
        GPU_RESOURCE,
        SHARED_GPU_RESOURCE,
        GPU_MEMORY_RESOURCE,
    ) or name.startswith(MIG_RESOURCE_PREFIX)


def demand_of(pod: Pod) -> Demand | None:
    """Return what a pod asks for, or None when it asks for no GPU.

    Raises `DemandError` with every fault when a request cannot be understood or granted. Of a pod
    that is bound only the counts are read: its wishes are past, and an annotation that somebody
    edits later must not make the devices that it holds unknown.
    """
    faults: list[str] = []
    containers: list[ContainerDemand] = []
    for container, kind in _containers(pod):
        counts = _counts(container, faults)
        if counts:
            containers.append(ContainerDemand(name=container.name, kind=kind, counts=counts))
    if not containers:
        return None
    totals, wishes = _totals(containers), Wishes()
    if not pod.spec.node_name:
        wishes, unreadable = read_wishes(pod.metadata.annotations or {})
        faults += [*unreadable, *contradictions(totals, wishes)]
    if faults:
        raise DemandError(tuple(faults))
    return Demand(containers=tuple(containers), totals=totals, wishes=wishes)


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
            count = _amount(name, quantity)
        except ValueError as error:
            faults.append(f"container {container.name!r}, {name}: {error}")
            # Asked for all the same, so that what contradicts it is told at once too.
            counts[ResourceName(name)] = 0
        else:
            if count:
                counts[ResourceName(name)] = count
    return counts


def _amount(name: str, quantity: Quantity) -> int:
    """Read a number of devices, or bytes of memory; raises `ValueError` with what to write."""
    share = name == GPU_MEMORY_RESOURCE
    try:
        count = whole(quantity)
    except QuantityError as error:
        example = "bytes of GPU memory, such as 8Gi" if share else "a number of GPUs, such as 1"
        raise ValueError(f"{error}; write {example}") from error
    if share and count and (fault := memory_fault(count)):
        raise ValueError(fault)
    if not share and count > MAX_COUNT:
        raise ValueError(f"{count} devices are more than any node has; ask for fewer")
    return count


def _totals(containers: list[ContainerDemand]) -> dict[ResourceName, int]:
    """Peak need: component-helpers/resource/helpers.go AggregateContainerRequests (KEP-753).

    Sidecars run on beside everything that starts after them; a plain init container runs alone
    but for the sidecars before it; app containers run together with all sidecars.
    """
    sidecars: dict[ResourceName, int] = {}
    apps: dict[ResourceName, int] = {}
    peaks: dict[ResourceName, int] = {}
    for container in containers:
        for name, count in container.counts.items():
            beside = sidecars.get(name, 0)
            match container.kind:
                case ContainerKind.SIDECAR:
                    sidecars[name] = beside + count
                    peaks[name] = max(peaks.get(name, 0), beside + count)
                case ContainerKind.INIT:
                    peaks[name] = max(peaks.get(name, 0), beside + count)
                case ContainerKind.APP:
                    apps[name] = apps.get(name, 0) + count
    return {
        name: max(peaks.get(name, 0), sidecars.get(name, 0) + apps.get(name, 0))
        for name in sorted({*peaks, *apps})
    }
