"""Reads one GPU from NVML: what it is, and how it is doing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gpus.model import DeviceId, Gpu, Health, MigInstance
from nodeagent.inventory import kernel
from nodeagent.inventory.binding import (
    AFFINITY_NODE,
    RESET_REQUIRED,
    Handle,
    NvmlError,
    call,
    value,
)
from nodeagent.inventory.health import hardware_health
from nodeagent.inventory.mig import mig_enabled, mig_instances
from nodeagent.inventory.topology import bdf_of

_UUID = re.compile(r"GPU-[A-Za-z0-9-]{1,90}")
_NUMA_WORDS = 16
_WORD_BITS = 64

#: nvmlDeviceArchitecture_t, by the names of GPU feature discovery's label `gpu.family`.
_ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada-lovelace",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}


_Answer = TypeVar("_Answer")


class UnusableGpuError(Exception):
    """A GPU that cannot be given out because NVML does not name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A GPU as it answered, without links; `complete` if nothing went wrong on the way."""

    gpu: Gpu
    complete: bool


@dataclass(slots=True)
class _Probe:
    """Asks one device, and remembers the first failure that makes its GPU faulty.

    A lost GPU ends the questions.
    """

    handle: Handle
    failure: NvmlError | None = None

    def ask(self, function: str, *arguments: object, essential: bool = False) -> Any:
        """An answer, or None; only essential questions may not fail."""
        return self.attempt(lambda: value(function, self.handle, *arguments), essential=essential)

    def attempt(self, question: Callable[[], _Answer], *, essential: bool) -> _Answer | None:
        """The same for questions that take several calls."""
        try:
            return question()
        except NvmlError as error:
            if error.lost:
                raise
            if essential or error.code == RESET_REQUIRED:
                self.failure = self.failure or error
            return None


def uuid_of(handle: Handle) -> DeviceId:
    """The GPU's UUID; raises `NvmlError` and `UnusableGpuError`."""
    uuid = call("nvmlDeviceGetUUID", handle)
    if not isinstance(uuid, str) or _UUID.fullmatch(uuid) is None:
        raise UnusableGpuError(f"NVML answers {uuid!r:.80} as its UUID")
    return DeviceId(uuid)


def read_gpu(handle: Handle, *, uuid: DeviceId, index: int, driver_root: Path) -> Reading:
    """Read all about the GPU; raises `NvmlError` if it is lost.

    A GPU that fails to tell what no GPU fails to tell is faulty.
    """
    probe = _Probe(handle)
    memory = probe.ask("nvmlDeviceGetMemoryInfo", essential=True)
    memory_bytes = int(memory.total) if memory and memory.total else None
    pci = probe.ask("nvmlDeviceGetPciInfo", essential=True)
    bdf = bdf_of(pci) if pci is not None else None
    name = probe.ask("nvmlDeviceGetName", essential=True)
    split = probe.attempt(lambda: mig_enabled(handle), essential=False) or False
    gpu = Gpu(
        uuid=uuid,
        index=index,
        minor=probe.ask("nvmlDeviceGetMinorNumber"),
        bdf=bdf,
        product=name if name and name.isprintable() else None,
        memory_bytes=memory_bytes,
        compute_capability=probe.ask("nvmlDeviceGetCudaComputeCapability"),
        architecture=_ARCHITECTURES.get(probe.ask("nvmlDeviceGetArchitecture")),
        numa_node=_numa_node(probe, bdf, driver_root),
        mig_enabled=split,
        mig=_mig(probe, memory_bytes) if split else (),
    )
    found = probe.attempt(lambda: hardware_health(handle), essential=False)
    health, reason = found or (Health.HEALTHY, "")
    if probe.failure is not None:
        health, reason = Health.FAULTY, str(probe.failure)
    return Reading(
        gpu=replace(gpu, health=health, health_reason=reason), complete=probe.failure is None
    )


def _mig(probe: _Probe, memory_bytes: int | None) -> tuple[MigInstance, ...]:
    instances = probe.attempt(
        lambda: mig_instances(probe.handle, gpu_memory=memory_bytes), essential=True
    )
    return instances or ()


def _numa_node(probe: _Probe, bdf: str | None, driver_root: Path) -> int | None:
    """The kernel's word, or NVML's where sysfs is not mounted; machines without NUMA have none."""
    told = kernel.numa_node(driver_root, bdf) if bdf else None
    if told is not None:
        return told if told >= 0 else None
    words = probe.ask("nvmlDeviceGetMemoryAffinity", _NUMA_WORDS, AFFINITY_NODE)
    mask = sum(int(word) << _WORD_BITS * i for i, word in enumerate(words or ()))
    return mask.bit_length() - 1 if mask.bit_count() == 1 else None
