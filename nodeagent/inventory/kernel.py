"""What the kernel tells of GPUs in /proc and /sys, below a driver root.

Only files are read here; each function answers None or nothing where its file is missing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_VERSION = re.compile(r"\b([0-9]{3,4}\.[0-9]+(?:\.[0-9]+)?)\b")


def driver_version(driver_root: Path) -> str | None:
    """Version of the loaded kernel module, such as `580.95.05`."""
    text = _text(driver_root / "proc/driver/nvidia/version")
    match = _VERSION.search(text) if text else None
    return match[1] if match else None


def bound_gpus(driver_root: Path) -> dict[str, int]:
    """PCI addresses of the GPUs that NVIDIA's kernel module drives, with the inodes of their
    entries: one that was unbound and bound again has another.
    """
    try:
        with os.scandir(driver_root / "proc/driver/nvidia/gpus") as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def machine_model(driver_root: Path) -> str | None:
    """The machine's model by DMI, such as `PowerEdge R740`."""
    text = _text(driver_root / "sys/class/dmi/id/product_name")
    return text.strip() or None if text else None


def boot_id() -> str | None:
    """The kernel's random name for the time since it booted."""
    text = _text(Path("/proc/sys/kernel/random/boot_id"))
    return text.strip() or None if text else None


def numa_node(driver_root: Path, bdf: str) -> int | None:
    """NUMA node of a PCI device; -1 is the kernel's word for none."""
    text = _text(driver_root / "sys/bus/pci/devices" / bdf / "numa_node")
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
