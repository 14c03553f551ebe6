"""MIG devices of a GPU, with the profile names that NVIDIA's device plugin computes."""

from __future__ import annotations

import math
import re

from gpus.model import DeviceId, MigInstance
from nodeagent.inventory.binding import INVALID_ARGUMENT, NOT_FOUND, Handle, NvmlError, call, value

_UUID = re.compile(r"MIG-[A-Za-z0-9/-]{1,90}")
#: nvmlDeviceGetName appends " MIG <profile>"; what follows the memory is told nowhere else.
_ATTRIBUTE = re.compile(r" MIG (?:[0-9]c\.)?[0-9]+g\.[0-9]+gb([+-][a-z.]+)$")
_MOST_DEVICES = 16
_MIB = 1 << 20
_GIB = 1 << 30


def mig_modes(handle: Handle) -> tuple[bool, bool] | None:
    """Whether the GPU is in MIG mode now, and after a reset; None if it has none.

    Raises `NvmlError`.
    """
    modes = value("nvmlDeviceGetMigMode", handle)
    return (modes[0] == 1, modes[1] == 1) if modes else None


def mig_instances(handle: Handle, *, gpu_memory: int | None) -> tuple[MigInstance, ...]:
    """All MIG devices of a GPU in MIG mode; `gpu_memory` is the whole GPU's, in bytes."""
    count = value("nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    found = (_device(handle, number) for number in range(min(count, _MOST_DEVICES)))
    devices = (_instance(device, gpu_memory) for device in found if device is not None)
    return tuple(device for device in devices if device is not None)


def profile_name(*, gpu_slices: int, compute_slices: int, memory_mib: int, gpu_memory: int) -> str:
    """The profile name, such as `1g.5gb`, computed as NVIDIA's go-nvlib does it.

    The memory in the name is the share of the GPU in eighths, rounded up, of its size in GiB.
    """
    eighths = math.ceil(memory_mib * _MIB / gpu_memory * 8) / 8
    gigabytes = math.floor(eighths * math.ceil(gpu_memory / _GIB) + 0.5)
    compute = "" if compute_slices == gpu_slices else f"{compute_slices}c."
    return f"{compute}{gpu_slices}g.{gigabytes}gb"


def _device(handle: Handle, number: int) -> Handle | None:
    try:
        return call("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
    except NvmlError as error:
        if error.code in (NOT_FOUND, INVALID_ARGUMENT):
            return None
        raise


def _instance(device: Handle, gpu_memory: int | None) -> MigInstance | None:
    uuid = value("nvmlDeviceGetUUID", device)
    shape = value("nvmlDeviceGetAttributes", device)
    if not uuid or _UUID.fullmatch(uuid) is None or shape is None or not gpu_memory:
        return None
    attribute = _ATTRIBUTE.search(value("nvmlDeviceGetName", device) or "")
    name = profile_name(
        gpu_slices=shape.gpuInstanceSliceCount,
        compute_slices=shape.computeInstanceSliceCount,
        memory_mib=shape.memorySizeMB,
        gpu_memory=gpu_memory,
    )
    return MigInstance(
        uuid=DeviceId(uuid),
        profile=name + (attribute[1] if attribute else ""),
        memory_bytes=shape.memorySizeMB * _MIB,
        gpu_instance=value("nvmlDeviceGetGpuInstanceId", device),
        compute_instance=value("nvmlDeviceGetComputeInstanceId", device),
    )
