"""All facts that checks judge, and the few questions that many checks ask of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from doctor.facts.cluster import Cluster, Plugin
from doctor.facts.host import Host
from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE, INVENTORY, PATH

RESOURCE = "nvidia.com/gpu"
_PRESENT = "nvidia.com/gpu.present"
#: What node-feature-discovery writes, in each of its settings.
_BY_DISCOVERY = re.compile(r"feature\.node\.kubernetes\.io/pci-[0-9a-f_]*10de\S*\.present")
#: Kind of the CDI spec that gpudetour's own agent writes.
OWN_CDI_KIND = "gpudetour.io/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known; `plugin_log` is None where no log was given or found."""

    host: Host = field(default_factory=Host)
    cluster: Cluster = field(default_factory=Cluster)
    plugin_log: str | None = None

    def has_gpu(self) -> bool:
        """Tell whether there is a GPU, or may be one where that cannot be seen."""
        if self.host.pci_was_read:
            return bool(self.host.gpus) or self.host.is_wsl or self.host.is_tegra
        if self.host.was_read:
            return self.is_gpu_node() or self.host.is_wsl or bool(self.host.driver.minors)
        # Seen through the API only, a node whose plugin never worked shows no sign of its GPU.
        return self.is_gpu_node() or bool(self.plugins_here())

    def is_gpu_node(self) -> bool:
        """Tell whether the cluster takes the node for one with GPUs."""
        labels = self.cluster.labels
        return (
            labels.get(GPU_LABEL) == GPU_LABEL_VALUE
            or labels.get(_PRESENT) == "true"
            or INVENTORY in self.cluster.annotations
            or self.cluster.capacity.get(RESOURCE, "0") != "0"
            or any(_BY_DISCOVERY.fullmatch(label) for label in labels)
        )

    def own_cdi(self) -> bool:
        """Tell whether gpudetour's agent gives GPUs by CDI, which needs no toolkit."""
        return any(file.kind == OWN_CDI_KIND and not file.fault for file in self.host.cdi)

    def path(self) -> str:
        """Return the path that gpudetour's agent published for the node, empty where none."""
        return self.cluster.annotations.get(PATH, "")

    def plugins_here(self) -> tuple[Plugin, ...]:
        """Return NVIDIA's plugins that are meant for the node."""
        return tuple(plugin for plugin in self.cluster.plugins or () if plugin.chooses_node)

    def runtime_version(self) -> tuple[str, tuple[int, ...]]:
        """Return kind and version of the container runtime, as far as known."""
        kind, _, text = self.cluster.runtime_version.partition("://")
        if text:
            return kind, version_of(text)
        return self.host.runtime.kind, self.host.runtime.version


def version_of(text: str) -> tuple[int, ...]:
    """Return the numbers at the start of a version such as `v1.18.2-1`, empty where none are."""
    numbers: list[int] = []
    for part in text.strip().lstrip("v").split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits or len(digits) > 6:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
