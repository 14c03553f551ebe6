"""The rows that are listed: nodes, GPUs and pods as people ask for them. Values only.

Their fields, in this order, are also the JSON and YAML output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gpus.model import DeviceId, Health, Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A pod that holds a device: alone, or `share_bytes` of its memory.

    `pod` is `namespace/name`, or a bare UID when that pod is not known.
    """

    pod: str
    share_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node: its path, driver, and how many of its devices are free, held and unfit.

    Of those held, `shared` are given out in shares.
    """

    node: str
    path: str
    reason: str
    driver: str | None
    cuda: str | None = None
    devices: int
    free: int
    held: int
    shared: int
    unfit: int
    #: How many of each model, by name.
    products: Mapping[str, int] = field(default_factory=dict)
    #: What is wrong with its GPUs, a line each, whether held or not.
    ailing: tuple[str, ...] = ()
    #: When its agent last said that it lives; None where that cannot be read. It changes all the
    #: time and by itself is no news.
    heartbeat: datetime | None = field(default=None, compare=False)
    #: It has said so, and not for as long as it promised.
    silent: bool = False
    #: What keeps the node's annotations from being read; empty when all is well.
    fault: str = ""

    @property
    def serving(self) -> bool:
        """Tell whether the node takes new pods by some path."""
        return self.path in (Path.PLUGIN, Path.ANNOTATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a GPU is doing now, as NVML tells its node agent; None is what it does not tell.

    `utilization` is the share of the last sample period in which a kernel ran, 0 to 1.
    """

    temperature_celsius: float | None = None
    utilization: float | None = None
    memory_used_bytes: float | None = None
    power_watts: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One device that can be given out, and the pods that hold it: several only by shares.

    `now` is None where it could not be read, and for parts of a GPU.
    """

    node: str
    index: int
    device: DeviceId
    product: str | None
    memory_bytes: int | None
    health: Health
    health_reason: str
    path: str
    holders: tuple[Holder, ...]
    now: Figures | None = field(default=None, compare=False)

    @property
    def shared(self) -> bool:
        """Tell whether the device is given out in shares of its memory."""
        return any(holder.share_bytes for holder in self.holders)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRow:
    """One pod that asks for GPUs."""

    namespace: str
    name: str
    asks: str
    phase: str
    node: str | None
    devices: tuple[DeviceId, ...]
    #: How many of each model it holds; empty where its node cannot be read.
    products: Mapping[str, int] = field(default_factory=dict)
    #: Bytes that it holds of the memory of its device; 0 when it holds its devices alone.
    share_bytes: int = 0
    #: The annotations that narrow which GPUs it may get, without our prefix.
    wishes: Mapping[str, str] = field(default_factory=dict)
    created: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All GPU nodes and GPU pods of a cluster at one moment, sorted by name."""

    nodes: tuple[NodeRow, ...]
    gpus: tuple[GpuRow, ...]
    pods: tuple[PodRow, ...]
