"""Lays a simulated machine out below a driver root, as a node with NVIDIA's driver looks.

What happens to the machine afterwards is in `machine`.
"""

from __future__ import annotations

from pathlib import Path

from localcluster.files import write_atomically
from localcluster.nvml.build import SONAME, build_library
from localcluster.nvml.description import describe, profile_text
from localcluster.nvml.machine import CONF, LIBRARY_FOLDER, Machine
from localcluster.nvml.nodefiles import place_driver, place_gpu
from localcluster.nvml.profiles import load_profile
from localcluster.parts.progress import SilentProgress
from localcluster.settings import default_settings


def install(driver_root: Path, profile: str, *, node: str, library: Path | None = None) -> Machine:
    """Place the machine of `profile` below `driver_root` and return it, undisturbed.

    A machine that was there is replaced, as by a new driver. `library` is the compiled library;
    without it, it is compiled into the cache. UUIDs are derived from `node`. Raises
    `UnknownProfileError` and `ToolchainError`.
    """
    description = describe(load_profile(profile), name=profile, node=node)
    if library is None:
        library = build_library(default_settings(), progress=SilentProgress())
    folder = driver_root / LIBRARY_FOLDER
    place_driver(driver_root, description.driver)
    for gpu in description.gpus:
        place_gpu(driver_root, gpu)
    write_atomically(folder / CONF, profile_text(description))
    machine = Machine.create(driver_root, description)
    _place_library(folder, library, driver=description.driver)
    return machine


def _place_library(folder: Path, library: Path, *, driver: str) -> None:
    """As the driver's package does: a file with the version, and beside it the name to load by.

    A copy for each machine, because the library finds its description beside itself.
    """
    versioned = folder / f"libnvidia-ml.so.{driver}"
    write_atomically(versioned, library.read_bytes(), mode=0o755)
    new_link = folder / f"{SONAME}.new"
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(versioned.name)
    new_link.replace(folder / SONAME)
    for old in folder.glob("libnvidia-ml.so.*"):
        if old.name not in (SONAME, versioned.name):
            old.unlink()
