"""GPUs, nodes and assignments as values. How they are written down is in `gpus.annotations`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

#: A full GPU (`GPU-…`) or a MIG instance (`MIG-…`), as NVML and the container toolkit write it.
DeviceId = NewType("DeviceId", str)
NodeName = NewType("NodeName", str)
PodUid = NewType("PodUid", str)
#: A name in `resources.limits`, such as `nvidia.com/gpu` or `nvidia.com/mig-1g.5gb`.
ResourceName = NewType("ResourceName", str)

GPU_RESOURCE = ResourceName("nvidia.com/gpu")
MIG_RESOURCE_PREFIX = "nvidia.com/mig-"
#: What NVIDIA's plugin calls time-sliced GPUs with `renameByDefault`.
SHARED_GPU_RESOURCE = ResourceName("nvidia.com/gpu.shared")
#: A share of one GPU, in bytes of its memory.
GPU_MEMORY_RESOURCE = ResourceName("gpudetour.io/gpu-memory")


class Health(StrEnum):
    """Whether a GPU may be given to a new pod; only `HEALTHY` may.

    The three other kinds follow NVIDIA's DRA driver (taints xid, gpu-lost, unmonitored): it works
    wrongly, it does not answer, or nobody can tell how it is doing.
    """

    HEALTHY = "healthy"
    FAULTY = "faulty"
    LOST = "lost"
    UNMONITORED = "unmonitored"


class Source(StrEnum):
    """Where an inventory was read, best first."""

    NVML = "nvml"
    NVIDIA_SMI = "nvidia-smi"
    PROC = "proc"
    SYSFS = "sysfs"


class Path(StrEnum):
    """By which way a node serves GPUs now (ARCHITECTURE.md, "The two paths")."""

    PLUGIN = "plugin"
    ANNOTATION = "annotation"
    SETTLING = "settling"
    DRAINING = "draining"


class PcieLevel(StrEnum):
    """Closest common PCIe ancestor of two GPUs, closest first (nvmlGpuTopologyLevel_t)."""

    BOARD = "board"
    SINGLE_SWITCH = "single-switch"
    MULTI_SWITCH = "multi-switch"
    HOST_BRIDGE = "host-bridge"
    NUMA_NODE = "numa-node"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How one GPU reaches another of the same node."""

    peer: DeviceId
    nvlinks: int = 0
    pcie: PcieLevel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """A MIG compute instance that can be given to a container.

    NVML's ids of the GPU instance and, in that, of the compute instance name its device nodes. They
    are known on the node only, so two instances with the same UUID are equal without them.
    """

    uuid: DeviceId
    profile: str
    memory_bytes: int | None = None
    gpu_instance: int | None = field(default=None, compare=False)
    compute_instance: int | None = field(default=None, compare=False)

    @property
    def resource(self) -> ResourceName:
        """Resource name of NVIDIA's `mixed` strategy; "+" is not allowed in one and becomes "."."""
        return ResourceName(MIG_RESOURCE_PREFIX + self.profile.replace("+", "."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One physical GPU; a fact that its source could not tell is None, never a guess.

    `health_since` is when it became what `health` says, absent while it is healthy; an aware time
    in whole seconds. `pci_class` is the kernel's class code (0x030000 VGA, 0x030200 3D), `display`
    whether a screen is driven or connected.
    """

    uuid: DeviceId
    index: int
    minor: int | None = None
    bdf: str | None = None
    product: str | None = None
    memory_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    architecture: str | None = None
    numa_node: int | None = None
    links: tuple[Link, ...] = ()
    health: Health = Health.HEALTHY
    health_reason: str = ""
    health_since: datetime | None = None
    display: bool | None = None
    pci_class: int | None = None
    mig_capable: bool | None = None
    mig_enabled: bool = False
    mig: tuple[MigInstance, ...] = ()

    def devices(self) -> Iterator[tuple[DeviceId, ResourceName]]:
        """What of this GPU can be given out: its MIG instances, or the whole GPU."""
        if not self.mig_enabled:
            yield self.uuid, GPU_RESOURCE
            return
        for instance in self.mig:
            yield instance.uuid, instance.resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """A GPU that the node has and that cannot, or shall not, be given out, and why.

    `index` is the one under which its source first listed it.
    """

    reason: str
    index: int | None = None
    bdf: str | None = None
    uuid: DeviceId | None = None
    product: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInventory:
    """All GPUs of one node, ordered by index.

    `trouble` is why no better source than `source` was used. `boot` tells one run of the machine
    from the next (the kernel's boot_id), `machine` is its model by DMI.
    """

    source: Source
    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    trouble: str = ""
    boot: str | None = None
    machine: str | None = None

    def devices(self) -> Iterator[tuple[Gpu, DeviceId, ResourceName]]:
        """Every device that can be given out, with the GPU that it is part of."""
        for gpu in self.gpus:
            for device, resource in gpu.devices():
                yield gpu, device, resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which devices each container of a pod holds.

    `epoch` is `leaseTransitions` of the Lease under which the extender decided: the API server
    refuses a Binding of any other epoch. Containers that hold nothing are absent.
    `share_bytes` is how much of the memory of one GPU the whole pod holds: then every container
    has that same GPU. Zero stands for devices that the pod holds alone.
    """

    epoch: int
    containers: Mapping[str, tuple[DeviceId, ...]] = field(default_factory=dict)
    share_bytes: int = 0

    def devices(self) -> frozenset[DeviceId]:
        """All devices of the pod; init containers may name the same ones as later containers."""
        return frozenset(d for devices in self.containers.values() for d in devices)
