"""Whether the container runtime of this node turns CDI device names into devices."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: Where containerd's configuration lies below the host's root: upstream, K3s and RKE2, MicroK8s.
CONTAINERD_CONFIGS = (
    "etc/containerd/config.toml",
    "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "var/snap/microk8s/current/args/containerd.toml",
)


def supports_cdi(runtime_version: str, *, containerd_configs: Iterable[str] = ()) -> bool:
    """Judge by the Node's `containerRuntimeVersion`, such as `containerd://2.1.5`.

    containerd has CDI on since 2.0 and behind `enable_cdi` in 1.7; older ones ignore the names,
    and the container would start without GPUs. CRI-O has it on since 1.23. `containerd_configs`
    are the texts of its configuration files; unreadable ones count as silent.
    """
    match = re.match(r"([a-z-]+)://v?(\d+)\.(\d+)", runtime_version)
    if match is None:
        return False
    runtime, version = match[1], (int(match[2]), int(match[3]))
    if runtime == "cri-o":
        return version >= (1, 23)
    if runtime != "containerd":
        return False
    if version >= (2, 0):
        return True
    return version >= (1, 7) and any(_enables_cdi(text) for text in containerd_configs)


def containerd_configs(host_root: Path) -> Iterator[str]:
    """Yield the texts of those of `CONTAINERD_CONFIGS` that can be read."""
    for name in CONTAINERD_CONFIGS:
        try:
            yield (host_root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeError):
            continue


def _enables_cdi(text: str) -> bool:
    try:
        config: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    for step in ("plugins", "io.containerd.grpc.v1.cri", "enable_cdi"):
        config = config.get(step) if isinstance(config, Mapping) else None
    return config is True
