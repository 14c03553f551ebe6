"""The NVIDIA GPUs on the PCI bus, by sysfs; the weakest source, which works without any driver.

It knows no UUIDs, so nothing can be given out by it; but it says which cards the node has and what
keeps them from being used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpus.model import Source, Withheld
from nodeagent.inventory.source import InventoryError, Survey

_NVIDIA = "0x10de"
#: PCI base class 03 is display controllers: 0x0300 VGA, 0x0302 3D. Their sound and USB functions
#: are of other classes.
_DISPLAY_CLASSES = ("0x0300", "0x0302")
#: Seconds for which one look at the bus holds.
_LASTS = 10.0

_BY_DRIVER = {
    None: "no kernel driver is bound to it",
    "nvidia": "NVIDIA's driver is bound to it, but does not list it; see `dmesg` for NVRM lines",
    "nouveau": "it is bound to nouveau; NVIDIA's driver cannot use it before that is unloaded",
    "vfio-pci": "it is bound to vfio-pci, to be passed to a virtual machine",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PciGpu:
    """A GPU on the bus; `driver` is the kernel module that is bound to it."""

    bdf: str
    pci_class: int
    driver: str | None

    def withheld(self) -> Withheld:
        """It as a GPU that NVIDIA's driver does not list."""
        reason = _BY_DRIVER.get(self.driver, f"it is bound to the kernel driver {self.driver}")
        return Withheld(bdf=self.bdf, reason=reason)


class PciBus:
    """The GPUs on the bus, looked at anew every few seconds; for one thread at a time."""

    def __init__(self, driver_root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = driver_root / "sys/bus/pci/devices"
        self._clock = clock
        self._looked = float("-inf")
        self._gpus: dict[str, PciGpu] | None = None

    def gpus(self, *, fresh: bool = False) -> dict[str, PciGpu]:
        """The GPUs by PCI address; none where there is no sysfs."""
        now = self._clock()
        if fresh or now - self._looked >= _LASTS:
            self._gpus = _scan(self._folder)
            self._looked = now
        return self._gpus or {}

    def survey(self) -> Survey:
        """What the bus alone tells; raises `InventoryError` where there is no sysfs."""
        gpus = self.gpus(fresh=True)
        if self._gpus is None:
            raise InventoryError(
                f"{self._folder} cannot be read", advice="mount the host's /sys below --driver-root"
            )
        return Survey(source=Source.SYSFS, withheld=tuple(gpu.withheld() for gpu in gpus.values()))


def _scan(folder: Path) -> dict[str, PciGpu] | None:
    try:
        devices = sorted(folder.iterdir())
    except OSError:
        return None
    found = (_gpu(device) for device in devices)
    return {gpu.bdf: gpu for gpu in found if gpu is not None}


def _gpu(device: Path) -> PciGpu | None:
    try:
        if (device / "vendor").read_text(encoding="ascii").strip() != _NVIDIA:
            return None
        text = (device / "class").read_text(encoding="ascii").strip()
        if not text.startswith(_DISPLAY_CLASSES):
            return None
        pci_class = int(text, 16)
    except (OSError, ValueError):
        return None
    try:
        driver = (device / "driver").readlink().name
    except OSError:
        driver = None
    return PciGpu(bdf=device.name, pci_class=pci_class, driver=driver)
