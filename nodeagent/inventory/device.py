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
from nodeagent.inventory.mig import mig_instances, mig_modes
from nodeagent.inventory.standing import Verdict
from nodeagent.inventory.topology import bdf_of
from nodeagent.inventory.xids import HealthPolicy

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
    """A GPU as it answered, without links.

    `sound` unless a question failed that no GPU fails to answer; `settled` if all questions were
    answered, so that what does not change need not be asked again.
    """

    gpu: Gpu
    sound: bool
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which GPU to read. `known` is what it answered before, since NVML came up."""

    uuid: DeviceId
    index: int
    known: Gpu | None = None


@dataclass(slots=True)
class _Probe:
    """Asks one device, and remembers the first failure that makes its GPU faulty.

    A lost GPU ends the questions.
    """

    handle: Handle
    failure: NvmlError | None = None
    failed: bool = False

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
            self.failed = True
            if essential or error.code == RESET_REQUIRED:
                self.failure = self.failure or error
            return None


def uuid_of(handle: Handle) -> DeviceId:
    """The GPU's UUID; raises `NvmlError` and `UnusableGpuError`."""
    uuid = call("nvmlDeviceGetUUID", handle)
    if not isinstance(uuid, str) or _UUID.fullmatch(uuid) is None:
        raise UnusableGpuError(f"NVML answers {uuid!r:.80} as its UUID")
    return DeviceId(uuid)


def read_gpu(handle: Handle, wanted: Wanted, *, driver_root: Path, policy: HealthPolicy) -> Reading:
    """Read all about the GPU; raises `NvmlError` if it is lost.

    A GPU that fails to tell what no GPU fails to tell is faulty.
    """
    probe = _Probe(handle)
    memory = probe.ask("nvmlDeviceGetMemoryInfo", essential=True)
    memory_bytes = int(memory.total) if memory and memory.total else None
    gpu = wanted.known or _unchanging(probe, wanted, driver_root)
    modes = probe.attempt(lambda: mig_modes(handle), essential=False)
    split = modes is not None and modes[0]
    gpu = replace(
        gpu,
        index=wanted.index,
        memory_bytes=memory_bytes,
        display=_display(probe),
        mig_capable=None if probe.failed and modes is None else modes is not None,
        mig_enabled=split,
        mig=_mig(probe, memory_bytes) if split else (),
    )
    found = probe.attempt(lambda: hardware_health(handle, policy), essential=False) or Verdict()
    health, reason = found.health, found.reason
    if probe.failure is not None:
        health, reason = Health.FAULTY, str(probe.failure)
    return Reading(
        gpu=replace(gpu, health=health, health_reason=reason),
        sound=probe.failure is None,
        settled=not probe.failed,
    )


def _unchanging(probe: _Probe, wanted: Wanted, driver_root: Path) -> Gpu:
    """What stays the same as long as NVML is up."""
    pci = probe.ask("nvmlDeviceGetPciInfo", essential=True)
    bdf = bdf_of(pci) if pci is not None else None
    name = probe.ask("nvmlDeviceGetName", essential=True)
    return Gpu(
        uuid=wanted.uuid,
        index=wanted.index,
        minor=probe.ask("nvmlDeviceGetMinorNumber"),
        bdf=bdf,
        product=name if name and name.isprintable() else None,
        compute_capability=probe.ask("nvmlDeviceGetCudaComputeCapability"),
        architecture=_ARCHITECTURES.get(probe.ask("nvmlDeviceGetArchitecture")),
        numa_node=_numa_node(probe, bdf, driver_root),
    )


def _display(probe: _Probe) -> bool | None:
    """Whether a screen is driven now, or at least connected."""
    answers = [
        probe.ask(question)
        for question in ("nvmlDeviceGetDisplayActive", "nvmlDeviceGetDisplayMode")
    ]
    return any(answers) if answers != [None, None] else None


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
