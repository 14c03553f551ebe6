"""What a cluster could leave behind on a machine, taken down to compare before with after."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from localcluster.node.machine import FIXED_PATHS
from localcluster.processtable import command_line, processes

# Other programs mount at any time, too: only what a cluster can have made counts.
_RUNTIME_FOLDERS = (
    "/run/containerd",
    "/run/netns",
    "/var/run/netns",
    "/var/lib/kubelet",
    "/var/lib/cni",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Everything that must be equal before and after."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    pod_network_namespaces: frozenset[str]
    interfaces: frozenset[str]
    fixed_paths: frozenset[str]
    runtime_files: frozenset[str]


def footprint(state_parent: Path) -> Footprint:
    """The machine's state now, as far as a cluster with its state below `state_parent` may change
    it.
    """
    mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    groups = (folder for folder, _, _ in os.walk("/sys/fs/cgroup"))
    files = (path for folder in _RUNTIME_FOLDERS for path in Path(folder).glob("**/*"))
    return Footprint(
        mounts=frozenset(p for p in mounts if p.startswith((str(state_parent), *_RUNTIME_FOLDERS))),
        cgroups=frozenset(group for group in groups if "kubepods" in group),
        pod_network_namespaces=frozenset(_pod_network_namespaces()),
        interfaces=frozenset(name for _, name in socket.if_nameindex()),
        fixed_paths=frozenset(str(path) for path in FIXED_PATHS if path.exists()),
        runtime_files=frozenset(map(str, files)),
    )


def processes_of(state: Path) -> dict[int, list[str]]:
    """Running processes whose command line names the state folder: all of a cluster do."""
    found = {process.pid: command_line(process.pid) for process in processes()}
    return {pid: words for pid, words in found.items() if any(str(state) in word for word in words)}


def _pod_network_namespaces() -> set[str]:
    found = set()
    for process in processes():
        folder = Path(f"/proc/{process.pid}")
        try:
            if "kubepods" in (folder / "cgroup").read_text():
                found.add(str((folder / "ns" / "net").readlink()))
        except OSError:
            continue
    return found
