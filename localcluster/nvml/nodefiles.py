"""What the kernel shows of GPUs below a driver root: /proc/driver/nvidia and PCI entries of /sys.

Plain files in a folder, for programs that read them by path. Real ones show more; here is what is
needed to find GPUs without NVML.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from localcluster.nvml.description import SimulatedGpu


def place_driver(driver_root: Path, driver: str) -> None:
    """Write /proc/driver/nvidia/version, taking away what was known of an earlier machine."""
    for old in ("proc/driver/nvidia", "sys/bus/pci/devices"):
        shutil.rmtree(driver_root / old, ignore_errors=True)
    _write(
        driver_root / "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {driver}  Release Build\n"
        "GCC version:  gcc version 13.3.0\n",
    )


def place_gpu(driver_root: Path, gpu: SimulatedGpu) -> None:
    """Write the entries of one GPU."""
    sysfs = _sysfs(driver_root, gpu)
    device_id = str(gpu.facts["pci_device_id"])
    _write(sysfs / "vendor", "0x10de\n")
    _write(sysfs / "device", f"0x{device_id[2:6].lower()}\n")
    _write(sysfs / "class", f"{gpu.pci_class}\n")
    _write(sysfs / "numa_node", f"{gpu.numa_node}\n")
    bind(driver_root, gpu, "nvidia")
    _write(
        _proc(driver_root, gpu) / "information",
        f"Model: \t\t {gpu.facts['name']}\n"
        f"GPU UUID: \t {gpu.uuid}\n"
        f"Bus Location: \t {gpu.bdf}\n"
        f"Device Minor: \t {gpu.slot}\n",
    )


def bind(driver_root: Path, gpu: SimulatedGpu, driver: str | None) -> None:
    """Show the GPU as bound to a kernel driver, or to none."""
    link = _sysfs(driver_root, gpu) / "driver"
    link.unlink(missing_ok=True)
    if driver is not None:
        link.symlink_to(f"../../drivers/{driver}")


def remove_gpu(driver_root: Path, gpu: SimulatedGpu) -> None:
    """Take the entries of one GPU away."""
    for folder in (_sysfs(driver_root, gpu), _proc(driver_root, gpu)):
        shutil.rmtree(folder, ignore_errors=True)


def _sysfs(driver_root: Path, gpu: SimulatedGpu) -> Path:
    return driver_root / "sys/bus/pci/devices" / gpu.bdf


def _proc(driver_root: Path, gpu: SimulatedGpu) -> Path:
    return driver_root / "proc/driver/nvidia/gpus" / gpu.bdf


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
