"""Finds libnvidia-ml.so.1 below a driver root, and tells one installed version from the next.

The root may be another machine's root directory mounted into a container, so symbolic links are
followed inside it. Nothing is loaded here.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path, PurePath

from nodeagent.inventory.kernel import driver_version
from nodeagent.inventory.source import InventoryError

SONAME = "libnvidia-ml.so.1"

#: Where distributions and NVIDIA's own installers put it. After the usual library folders: COS and
#: older installers, Talos' system extension, NixOS, Bottlerocket, WSL.
FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "lib64",
    "lib",
    "usr/local/nvidia/lib64",
    "usr/local/nvidia/lib",
    "opt/nvidia/lib64",
    "opt/nvidia/lib",
    "home/kubernetes/bin/nvidia/lib64",
    "usr/local/glibc/usr/lib",
    "usr/local/lib",
    "run/opengl-driver/lib",
    "usr/lib/nvidia",
    "usr/lib/nvidia/tesla",
    "usr/lib/wsl/lib",
)

#: The GPU Operator's driver container shows its own root here on the host.
NESTED_ROOTS = (".", "run/nvidia/driver")

_MOST_SYMLINKS = 40
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFile:
    """A library file as it was found; another inode or time is another driver."""

    path: Path
    device: int
    inode: int
    modified_ns: int


def find_library(driver_root: Path) -> LibraryFile:
    """The library to load: the one of the loaded kernel module's version if there are several.

    Raises `InventoryError` with the folders that were searched.
    """
    found = [file for root in NESTED_ROOTS for file in _candidates(driver_root / root)]
    usable = [path for path in found if _is_for_this_machine(path)]
    if not usable:
        raise InventoryError(_not_found(driver_root, found), advice=_ADVICE, code=12)
    loaded = driver_version(driver_root)
    matching = [path for path in usable if loaded and path.name.endswith(f".so.{loaded}")]
    path = (matching or usable)[0]
    status = path.stat()
    return LibraryFile(
        path=path,
        device=status.st_dev,
        inode=status.st_ino,
        modified_ns=status.st_mtime_ns,
    )


_ADVICE = (
    "install NVIDIA's driver on the node, or set --driver-root to the root below which it is"
    " installed"
)


def _not_found(driver_root: Path, found: list[Path]) -> str:
    if found:
        return f"{found[0]} is not a library for {platform.machine()}"
    return f"no {SONAME} below {driver_root} (searched {', '.join(FOLDERS)})"


def _candidates(root: Path) -> list[Path]:
    resolved = (resolve_in(root, PurePath(folder) / SONAME) for folder in FOLDERS)
    return [path for path in resolved if path is not None and path.is_file()]


def resolve_in(root: Path, path: PurePath) -> Path | None:
    """Follow symbolic links as a process would whose root directory is `root`.

    None where something is missing or links form a loop. Debian's alternatives and NixOS use
    absolute links, which would lead out of a mounted root.
    """
    current = Path()
    pending = list(reversed(path.parts))
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            current = current.parent
            continue
        following = current / part
        try:
            target = (root / following).readlink()
        except OSError:
            current = following
            continue
        links += 1
        if links > _MOST_SYMLINKS:
            return None
        if target.is_absolute():
            current = Path()
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    resolved = root / current
    return resolved if resolved.exists() else None


def _is_for_this_machine(path: Path) -> bool:
    """Whether an ELF file is of this processor: /usr/lib holds 32-bit libraries on some systems."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return False
    wanted = _ELF_MACHINES.get(platform.machine())
    is_64_bit = header[:5] == b"\x7fELF\x02"
    return is_64_bit and wanted in (None, int.from_bytes(header[18:20], "little"))
