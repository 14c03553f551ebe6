"""Which files of the driver a container needs, and where they lie on the host.

The agent sees the host through mounts, while a CDI spec names paths of the host: `Roots` turns one
into the other. Looking only, nothing is written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from gpus.model import DeviceId, Gpu, MigInstance
from nodeagent.inventory.library import FOLDERS, resolve_in

#: Device nodes that every CUDA process needs, whichever GPU it uses.
CONTROL_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")

#: What the toolkit calls the capabilities compute and utility (libnvidia-container nvc_info.c).
_LIBRARY = re.compile(
    r"lib(?:cuda|cudadebugger|nvidia-(?:allocator|cfg|gpucomp|ml|nvvm|opencl|pkcs11(?:-openssl3)?"
    r"|ptxjitcompiler))\.so(?:\.[0-9.]+)?"
)
_PROGRAMS = ("usr/bin/nvidia-smi", "usr/bin/nvidia-debugdump")
#: What runs NVIDIA's CDI hooks on the host, and the words before the hook's name: the toolkit's
#: packages, older ones, the GPU Operator.
_HOOKS = (
    ("usr/bin/nvidia-cdi-hook", ("nvidia-cdi-hook",)),
    ("usr/bin/nvidia-ctk", ("nvidia-ctk", "hook")),
    ("usr/local/nvidia/toolkit/nvidia-cdi-hook", ("nvidia-cdi-hook",)),
)
#: The GPU Operator's driver container shows its own root here on the host.
_DRIVER_CONTAINER = "run/nvidia/driver"
#: Where the kernel module tells the minor numbers of MIG's capabilities, below a driver root.
_MIG_MINORS = "proc/driver/nvidia-caps/mig-minors"
_ACCESS = re.compile(r"gpu(\d+)/gi(\d+)(?:/ci(\d+))?/access (\d+)")


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


def nodes_of(roots: Roots, gpu: Gpu) -> dict[DeviceId, tuple[HostFile, ...]]:
    """Return the device nodes of a GPU and of each of its MIG instances, control nodes aside.

    An instance takes its GPU's node and two capabilities, its GPU instance's and its own
    (MIG user guide, "Device Nodes and Capabilities"). Devices of which any is missing are left out.
    """
    node = device_node(roots, f"nvidia{gpu.minor}") if gpu.minor is not None else None
    if node is None:
        return {}
    capabilities = _capabilities(roots) if gpu.mig else {}
    nodes: dict[DeviceId, tuple[HostFile, ...]] = {gpu.uuid: (node,)}
    for instance in gpu.mig:
        own = [
            device_node(roots, f"nvidia-caps/nvidia-cap{capabilities[key]}")
            for key in _keys(gpu, instance)
            if key in capabilities
        ]
        found = tuple(each for each in own if each is not None)
        if len(found) == len(_keys(gpu, instance)):
            nodes[instance.uuid] = (node, *found)
    return nodes


def driver_files(roots: Roots) -> tuple[HostFile, ...]:
    """Return the libraries and programs that exist, each to appear where it is in its root."""
    for root in (roots.driver, roots.driver / _DRIVER_CONTAINER):
        if names := _library_names(root):
            names += [PurePath(name) for name in _PROGRAMS]
            files = (_driver_file(roots, root, name) for name in names)
            return tuple(file for file in files if file is not None)
    return ()


def hook_command(roots: Roots) -> tuple[str, ...]:
    """Return the command of NVIDIA's toolkit for CDI hooks, its path on the host first, if any."""
    for name, words in _HOOKS:
        path = resolve_in(roots.host, PurePath(name))
        if path is not None and path.is_file():
            return (roots.on_host(path), *words)
    return ()


def _library_names(root: Path) -> list[PurePath]:
    for folder in FOLDERS:
        # By name alone, once: thousands of libraries may lie there.
        found = [name for name in _listed(root / folder) if _LIBRARY.fullmatch(name)]
        if found:  # a driver's libraries lie together; other folders are links or of another ABI
            return [PurePath(folder, name) for name in sorted(found)]
    return []


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are all that is needed
    except OSError:
        return []


def _driver_file(roots: Roots, root: Path, name: PurePath) -> HostFile | None:
    # Links are followed here: an absolute one below a driver root means nothing to the runtime.
    target = resolve_in(root, name)
    if target is None or not target.is_file():
        return None
    return HostFile(container_path=str(PurePosixPath("/", name)), host_path=roots.on_host(target))


def _keys(gpu: Gpu, instance: MigInstance) -> tuple[tuple[int | None, ...], ...]:
    of_gpu_instance = (gpu.minor, instance.gpu_instance)
    return (*of_gpu_instance, None), (*of_gpu_instance, instance.compute_instance)


def _capabilities(roots: Roots) -> Mapping[tuple[int | None, ...], int]:
    """Minor numbers by the GPU's own minor number, GPU instance and compute instance, if any."""
    try:
        text = (roots.driver / _MIG_MINORS).read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    found = (match for line in text.splitlines() if (match := _ACCESS.fullmatch(line.strip())))
    return {
        (int(m[1]), int(m[2]), int(m[3]) if m[3] is not None else None): int(m[4]) for m in found
    }
