"""Asks NVML for all GPUs once. What was known before plays no part here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gpus.model import DeviceId, Gpu, Health
from nodeagent.inventory.binding import NvmlError, call, value
from nodeagent.inventory.device import UnusableGpuError, read_gpu, uuid_of
from nodeagent.inventory.source import InventoryError
from nodeagent.inventory.topology import Located

#: More GPUs than any machine has: the answer is garbage.
_MOST_GPUS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Enumeration:
    """The GPUs that answered, where they are, and why others did not, by index."""

    driver: str | None
    cuda: str | None
    gpus: dict[DeviceId, Gpu] = field(default_factory=dict)
    #: Of these, some facts could not be read.
    incomplete: set[DeviceId] = field(default_factory=set)
    located: list[Located] = field(default_factory=list)
    failures: dict[int, NvmlError | UnusableGpuError] = field(default_factory=dict)


def enumerate_gpus(driver_root: Path) -> Enumeration:
    """Read every GPU that NVML lists, without links.

    Raises `NvmlError` where NVML as a whole does not work and `InventoryError` where its answer
    makes no sense.
    """
    cuda = value("nvmlSystemGetCudaDriverVersion_v2")
    found = Enumeration(
        driver=value("nvmlSystemGetDriverVersion") or None,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
    )
    count = call("nvmlDeviceGetCount")
    if count > _MOST_GPUS:
        raise InventoryError(
            f"NVML reports {count} GPUs", advice="see `dmesg` on the node for NVRM lines"
        )
    for index in range(count):
        try:
            _add(found, index, driver_root)
        except (NvmlError, UnusableGpuError) as error:
            found.failures[index] = error
    return found


def _add(found: Enumeration, index: int, driver_root: Path) -> None:
    handle = call("nvmlDeviceGetHandleByIndex", index)
    uuid = uuid_of(handle)
    if uuid in found.gpus:
        first = found.gpus[uuid]
        reason = f"NVML answers the same UUID for the GPUs {first.index} and {index}"
        found.gpus[uuid] = replace(first, health=Health.FAULTY, health_reason=reason)
        raise UnusableGpuError(reason)
    reading = read_gpu(handle, uuid=uuid, index=index, driver_root=driver_root)
    gpu = found.gpus[uuid] = reading.gpu
    if not reading.complete:
        found.incomplete.add(uuid)
    found.located.append(Located(uuid=uuid, bdf=gpu.bdf, handle=handle))
