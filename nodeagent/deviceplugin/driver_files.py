"""Which files of the driver a container needs, and where they lie on the host.

The agent sees the host through mounts, while a CDI spec names paths of the host: `Roots` turns one
into the other. Looking only, nothing is written.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from nodeagent.inventory.library import FOLDERS, resolve_in

#: Device nodes that every CUDA process needs, whichever GPU it uses.
CONTROL_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")

_LIBRARIES = ("libcuda.so*", "libnvidia-ml.so*", "libnvidia-ptxjitcompiler.so*")
_PROGRAMS = ("usr/bin/nvidia-smi",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Folders as this process sees them.

    `driver` is the root of the file tree that holds the driver's libraries, `dev` of the one that
    holds `dev/nvidia*`, and `host` is where the host's own root is mounted.
    """

    driver: Path = Path("/")
    dev: Path = Path("/")
    host: Path = Path("/")

    def on_host(self, path: Path) -> str:
        """Return the path by which the host itself knows a file."""
        inside = path.is_relative_to(self.host)
        return str(Path("/") / path.relative_to(self.host)) if inside else str(path)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class HostFile:
    """A file for the container: where it appears there, and where it is on the host."""

    container_path: str
    host_path: str


def device_node(roots: Roots, name: str) -> HostFile | None:
    """Return `/dev/<name>` if it is a character device; runtimes refuse anything else."""
    path = roots.dev / "dev" / name
    try:
        if not stat.S_ISCHR(path.stat().st_mode):
            return None
    except OSError:
        return None
    return HostFile(container_path=f"/dev/{name}", host_path=roots.on_host(path))


def control_nodes(roots: Roots) -> tuple[HostFile, ...]:
    """Return those of the control nodes that exist."""
    found = (device_node(roots, name) for name in CONTROL_NODES)
    return tuple(node for node in found if node is not None)


def driver_files(roots: Roots) -> tuple[HostFile, ...]:
    """Return the libraries and programs that exist, each to appear where it is on the host."""
    names: list[PurePath] = []
    for folder in FOLDERS:
        found = (path for pattern in _LIBRARIES for path in (roots.driver / folder).glob(pattern))
        names += sorted(path.relative_to(roots.driver) for path in found)
        if names:
            break  # a driver's libraries lie together; other folders are links or of another ABI
    names += [PurePath(name) for name in _PROGRAMS]
    return tuple(file for name in names if (file := _driver_file(roots, name)) is not None)


def _driver_file(roots: Roots, name: PurePath) -> HostFile | None:
    # Links are followed here: an absolute one below a driver root means nothing to the runtime.
    target = resolve_in(roots.driver, name)
    if target is None or not target.is_file():
        return None
    return HostFile(container_path=str(PurePosixPath("/", name)), host_path=roots.on_host(target))
