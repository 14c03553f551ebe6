"""What the kernel tells of GPUs in /proc and /sys, below a driver root.

Only files are read here; each function answers None or nothing where its file is missing.
"""

from __future__ import annotations

import re
from pathlib import Path

_VERSION = re.compile(r"\b([0-9]{3,4}\.[0-9]+(?:\.[0-9]+)?)\b")


def driver_version(driver_root: Path) -> str | None:
    """Version of the loaded kernel module, such as `580.95.05`."""
    text = _text(driver_root / "proc/driver/nvidia/version")
    match = _VERSION.search(text) if text else None
    return match[1] if match else None


def bound_gpus(driver_root: Path) -> frozenset[str]:
    """PCI addresses of the GPUs that the NVIDIA kernel module drives."""
    try:
        return frozenset(path.name for path in (driver_root / "proc/driver/nvidia/gpus").iterdir())
    except OSError:
        return frozenset()


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
