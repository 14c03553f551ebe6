"""What is known of a cluster before the install. Data, and the few questions that many checks ask.

A member that is None could not be read; `unreadable` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A Node, as far as it tells what it runs."""

    name: str
    kubelet: str = ""
    os_image: str = ""
    operating_system: str = "linux"
    runtime: str = ""
    provider: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A Deployment, DaemonSet or static pod; `images` are those of its containers."""

    kind: str
    namespace: str
    name: str
    images: tuple[str, ...] = ()
    version: str = ""
    is_nvidia_plugin: bool = False
    is_of_operator: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodWebhook:
    """A mutating webhook that is called when pods are created."""

    configuration: str
    name: str
    fails_closed: bool = False
    is_reinvoked: bool = False
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Something that an install does; `allowed` is what the API server says to it."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    allowed: bool = True

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        dotted = f".{self.group}" if self.group else ""
        return f"{self.verb} {self.resource}{dotted}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What the API server said to a Service at the address that the extender would have.

    `refusal` is empty where it may be had. `owner` is the Service that has it.
    """

    wanted: str
    refusal: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """All that was read."""

    version: str = ""
    groups: frozenset[str] = frozenset()
    has_policies: bool = True
    rights: tuple[Right, ...] = ()
    runtime_classes: Mapping[str, str] | None = None
    namespace_labels: Mapping[str, str] | None = None
    machines: tuple[Machine, ...] | None = None
    workloads: tuple[Workload, ...] | None = None
    webhooks: tuple[PodWebhook, ...] | None = None
    extended_classes: tuple[str, ...] = ()
    slices: int = 0
    address: Address | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def running(self, *marks: str) -> tuple[Workload, ...]:
        """Return the workloads of which name or an image contains one of these texts."""
        return tuple(
            workload
            for workload in self.workloads or ()
            if any(
                mark in text
                for mark in marks
                for text in (workload.name, *(_name_of(image) for image in workload.images))
            )
        )

    def has_group(self, *groups: str) -> bool:
        """Tell whether the API server serves one of these groups or a part of one."""
        return any(
            served == group or served.endswith(f".{group}")
            for served in self.groups
            for group in groups
        )


def _name_of(image: str) -> str:
    """An image without its registry and tag: a mirror's name says nothing."""
    path = image.partition("@")[0]
    last = path.rpartition("/")[2].partition(":")[0]
    return "/".join([*path.split("/")[-2:-1], last])
