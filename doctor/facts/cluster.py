"""Facts of one node's cluster, as the API server tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kube.objects import NodeCondition, Taint


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A hostPath and where a container sees it."""

    host_path: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginPod:
    """A plugin's pod on the node; `waiting` is the reason why its container does not run."""

    name: str
    phase: str = ""
    ready: bool = False
    waiting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A DaemonSet that runs NVIDIA's device plugin.

    `settings` are its flags by name without dashes in front, from arguments, then from the
    environment. `configs` are the texts of its ConfigMaps by key. `elsewhere` says why the node is
    not chosen by selector, affinity or taints; empty where it is.
    """

    name: str
    image: str = ""
    version: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    runtime_class: str = ""
    is_privileged: bool = False
    mounts: tuple[Mount, ...] = ()
    library_path: str = ""
    preload: str = ""
    config_map: str = ""
    config_map_missing: bool = False
    configs: Mapping[str, str] = field(default_factory=dict)
    mismatch: str = ""
    untolerated: str = ""
    desired: int = 0
    is_of_operator: bool = False
    pod: PluginPod | None = None

    @property
    def chooses_node(self) -> bool:
        """Tell whether its pod may run on the node."""
        return not self.mismatch and not self.untolerated


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the API server says about the node; `was_read` is false where it was not asked.

    `runtime_classes` maps names to handlers. `extended_classes` are DeviceClasses that offer
    `nvidia.com/gpu` by DRA, `slices` counts the node's ResourceSlices of gpu.nvidia.com.
    `unreadable` maps what was asked for to why it was refused.
    """

    was_read: bool = False
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[NodeCondition, ...] = ()
    taints: tuple[Taint, ...] = ()
    runtime_version: str = ""
    runtime_classes: Mapping[str, str] | None = None
    plugins: tuple[Plugin, ...] | None = None
    extended_classes: tuple[str, ...] = ()
    slices: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
