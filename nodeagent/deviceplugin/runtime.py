"""What the container runtime of this node makes of a device: CDI names, NVIDIA's variable, or none.

Judged by the versions on the Node and by containerd's configuration as far as it can be read; what
cannot be known speaks against nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

#: Where containerd's configuration lies below the host's root, what overrides it last: upstream,
#: with the drop-ins that NVIDIA's toolkit writes, K3s and RKE2, MicroK8s.
CONTAINERD_CONFIGS = (
    "etc/containerd/config.toml",
    "etc/containerd/conf.d/*.toml",
    "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "var/lib/rancher/k3s/agent/etc/containerd/config.toml.d/*.toml",
    "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/*.toml",
    "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d/*.toml",
    "var/snap/microk8s/current/args/containerd.toml",
)
#: Names of the CRI plugin in containerd's configuration, versions 2 and 3.
_CRI = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
#: Passes CDI names on (KEP-4009, beta); an older kubelet drops them without a word.
_OLDEST_KUBELET = (1, 29)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A node's versions, as its Node tells them, and the texts of containerd's configuration."""

    runtime_version: str
    kubelet_version: str = ""
    containerd_configs: tuple[str, ...] = ()


def obstacle_to_cdi(runtime: Runtime, *, cdi_folder: str) -> str | None:
    """Return why CDI names would not become devices, or None; `cdi_folder` is a path on the host.

    `runtime_version` is such as `containerd://2.1.5`. containerd has CDI on since 2.0 and behind
    `enable_cdi` in 1.7; older ones ignore the names, and the container would start without GPUs.
    CRI-O has it on since 1.23.
    """
    kubelet = _version(runtime.kubelet_version)
    if kubelet is not None and kubelet < _OLDEST_KUBELET:
        return f"kubelet {runtime.kubelet_version} does not pass CDI names on"
    match = re.match(r"([a-z-]+)://(.*)", runtime.runtime_version)
    version = _version(match[2]) if match else None
    if match is None or version is None:
        return f"the runtime {runtime.runtime_version[:64]!r} is not known to read CDI names"
    if match[1] == "cri-o" and version >= (1, 23):
        return None
    if match[1] != "containerd" or version < (1, 7):
        return f"{runtime.runtime_version} does not read CDI names"
    return _obstacle_in_containerd(version, runtime.containerd_configs, cdi_folder)


def reads_variable(runtime: Runtime) -> bool | None:
    """Tell whether NVIDIA's runtime is set up, which reads `NVIDIA_VISIBLE_DEVICES`.

    None where that cannot be read: only containerd's configuration is understood.
    """
    if not runtime.runtime_version.startswith("containerd://"):
        return None
    found = [config for config in map(_parsed, runtime.containerd_configs) if config is not None]
    return any(map(_names_nvidia, found)) if found else None


def containerd_configs(host_root: Path) -> Iterator[str]:
    """Yield the texts of those of `CONTAINERD_CONFIGS` that can be read."""
    for pattern in CONTAINERD_CONFIGS:
        for path in sorted(host_root.glob(pattern)):
            try:
                yield path.read_text(encoding="utf-8")
            except (OSError, UnicodeError):
                continue


def _obstacle_in_containerd(
    version: tuple[int, int], texts: Iterable[str], cdi_folder: str
) -> str | None:
    enabled, folders = version >= (2, 0), None
    for config in filter(None, map(_parsed, texts)):
        for name in _CRI:
            said = _section(config, "plugins", name)
            enabled = said["enable_cdi"] is True if "enable_cdi" in said else enabled
            folders = said.get("cdi_spec_dirs", folders)
    if not enabled:
        return "containerd's configuration has not enable_cdi = true"
    if isinstance(folders, list) and _plain(cdi_folder) not in map(_plain, map(str, folders)):
        return f"containerd reads CDI specs in {', '.join(map(str, folders))}, not in {cdi_folder}"
    return None


def _names_nvidia(config: Mapping[str, Any]) -> bool:
    runtimes = [_section(config, "plugins", name, "containerd", "runtimes") for name in _CRI]
    return any(
        "nvidia" in name or "nvidia" in str(_section(entries, name, "options").get("BinaryName"))
        for entries in runtimes
        for name in entries
    )


def _section(config: Mapping[str, Any], *steps: str) -> Mapping[str, Any]:
    found: Any = config
    for step in steps:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"v?(\d{1,6})\.(\d{1,6})", text, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def _plain(folder: str) -> str:
    """Return a folder by its shortest name: /var/run is a link to /run."""
    text = str(PurePosixPath(folder))
    return text.removeprefix("/var") if text.startswith("/var/run/") else text
