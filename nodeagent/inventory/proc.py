"""The GPUs by /proc/driver/nvidia, which the kernel module offers without any library.

It names them, but tells nothing of their health, so they are unmonitored.
"""

from __future__ import annotations

import re
from pathlib import Path

from gpus.model import DeviceId, Gpu, Health, Source, Withheld
from nodeagent.inventory import kernel
from nodeagent.inventory.choice import normal_address
from nodeagent.inventory.source import InventoryError, Sighting, Survey

_UUID = re.compile(r"GPU-[A-Za-z0-9-]{1,90}")
#: What an `information` file may hold; real ones have about 500 bytes.
_MOST_BYTES = 65536


class ProcSource:
    """Reads the kernel module's files below a driver root."""

    def __init__(self, driver_root: Path) -> None:
        self._driver_root = driver_root

    def survey(self) -> Survey:
        """The GPUs that the module drives; raises `InventoryError` where it is not loaded."""
        folder = self._driver_root / "proc/driver/nvidia/gpus"
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise InventoryError(
                f"{folder} cannot be read: {error.strerror}",
                advice="load the kernel module (`modprobe nvidia`)",
            ) from error
        sightings: dict[DeviceId, Sighting] = {}
        withheld = []
        # NVML counts GPUs in the order of their PCI addresses too.
        for index, entry in enumerate(entries):
            found = _gpu(entry, index, self._driver_root)
            if isinstance(found, Withheld):
                withheld.append(found)
            elif found.uuid in sightings:
                withheld.append(Withheld(bdf=found.bdf, reason="another GPU has the same UUID"))
            else:
                sightings[found.uuid] = Sighting(gpu=found, complete=False)
        return Survey(
            source=Source.PROC,
            driver=kernel.driver_version(self._driver_root),
            sightings=tuple(sightings.values()),
            withheld=tuple(withheld),
        )


def _gpu(entry: Path, index: int, driver_root: Path) -> Gpu | Withheld:
    facts = _facts(entry / "information")
    bdf = normal_address(facts.get("Bus Location", entry.name))
    product = facts.get("Model")
    product = product if product and product.isprintable() else None
    uuid = facts.get("GPU UUID", "")
    if facts.get("GPU Excluded", "No") == "Yes":
        return Withheld(bdf=bdf, product=product, reason="excluded by NVIDIA's kernel module")
    if _UUID.fullmatch(uuid) is None:
        # Question marks stand for a UUID until a program has woken the GPU up.
        return Withheld(
            bdf=bdf, product=product, reason="NVIDIA's kernel module has not read its UUID"
        )
    minor = facts.get("Device Minor", "")
    numa_node = kernel.numa_node(driver_root, bdf) if bdf else None
    return Gpu(
        uuid=DeviceId(uuid),
        index=index,
        minor=int(minor) if re.fullmatch(r"[0-9]{1,6}", minor, re.ASCII) else None,
        bdf=bdf,
        product=product,
        numa_node=numa_node if numa_node is not None and numa_node >= 0 else None,
        health=Health.UNMONITORED,
    )


def _facts(path: Path) -> dict[str, str]:
    """The lines `Name: value` of a file; none where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_MOST_BYTES).splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
