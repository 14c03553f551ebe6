"""Asks NVML for all GPUs once. What was known before plays no part here."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpus.model import DeviceId, Gpu, Health
from nodeagent.inventory.attempts import Progress
from nodeagent.inventory.binding import NvmlError, call, value
from nodeagent.inventory.device import UnusableGpuError, Wanted, read_gpu, uuid_of
from nodeagent.inventory.source import InventoryError
from nodeagent.inventory.topology import Located
from nodeagent.inventory.xids import HealthPolicy

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Enumerator:
    """How to ask. `settled` holds what need not be asked again until NVML restarts."""

    driver_root: Path
    policy: HealthPolicy
    settled: MutableMapping[DeviceId, Gpu]

    def enumerate(self, progress: Progress, *, skip: Collection[int]) -> Enumeration:
        """Read every GPU that NVML lists, without links, but those of the indices to skip.

        Raises `NvmlError` where NVML as a whole does not work and `InventoryError` where its
        answer makes no sense.
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
            if index in skip:
                continue
            progress.note(index)
            try:
                self._add(found, index)
            except (NvmlError, UnusableGpuError) as error:
                found.failures[index] = error
        return found

    def _add(self, found: Enumeration, index: int) -> None:
        handle = call("nvmlDeviceGetHandleByIndex", index)
        uuid = uuid_of(handle)
        if uuid in found.gpus:
            first = found.gpus[uuid]
            reason = f"NVML answers the same UUID for the GPUs {first.index} and {index}"
            found.gpus[uuid] = replace(first, health=Health.FAULTY, health_reason=reason)
            raise UnusableGpuError(reason)
        reading = read_gpu(
            handle,
            Wanted(uuid=uuid, index=index, known=self.settled.get(uuid)),
            driver_root=self.driver_root,
            policy=self.policy,
        )
        gpu = found.gpus[uuid] = reading.gpu
        if reading.settled:
            self.settled[uuid] = gpu
        if not reading.sound:
            found.incomplete.add(uuid)
        found.located.append(Located(uuid=uuid, index=index, bdf=gpu.bdf, handle=handle))
