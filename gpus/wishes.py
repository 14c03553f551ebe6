"""What users write to narrow which GPUs their pod may get: the annotations read, and applied.

Whether a wish can be met together with what the containers ask for is `gpus.contradictions`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from typing import TypeVar

from gpus.annotations import (
    EXCLUDE_UUID,
    MIN_COMPUTE,
    MIN_MEMORY,
    POLICY,
    PRODUCT,
    TOPOLOGY,
    UUID,
    is_device_id,
)
from gpus.model import DeviceId, Gpu
from gpus.quantity import QuantityError, whole, written

#: Bytes. No GPU has more, and who asks for less than the least has forgotten the unit.
MOST_MEMORY = 1 << 40
LEAST_MEMORY = 1 << 20

#: Entries of one list; more than the GPUs of any node, few enough to compare with each of them.
MAX_ENTRIES = 64
#: Characters; NVML's names have at most 96 (NVML_DEVICE_NAME_V2_BUFFER_SIZE).
MAX_GLOB = 128
#: Today's is 12; above this somebody has left out the point of 8.0.
_HIGHEST_COMPUTE = 40

_COMPUTE = re.compile(r"(?P<major>[0-9]{1,3})(?:\.(?P<minor>[0-9]))?", re.ASCII)

_Value = TypeVar("_Value")
_Choice = TypeVar("_Choice", bound=StrEnum)


class Topology(StrEnum):
    """How the GPUs of one pod must be connected."""

    NVLINK = "nvlink"
    NUMA = "numa"


class Policy(StrEnum):
    """How pods are spread over nodes."""

    BINPACK = "binpack"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a pod wants of its GPUs beyond their number; nothing is wanted by default.

    `products` are globs of which any may match, `min_memory` is bytes of one device,
    `min_compute` a compute capability (major, minor).
    """

    products: tuple[str, ...] = ()
    uuids: frozenset[DeviceId] = frozenset()
    excluded: frozenset[DeviceId] = frozenset()
    min_memory: int = 0
    min_compute: tuple[int, int] | None = None
    topology: Topology | None = None
    policy: Policy | None = None

    @property
    def narrows(self) -> bool:
        """Tell whether some GPUs are not admitted."""
        return bool(
            self.products
            or self.uuids
            or self.excluded
            or self.min_memory
            or self.min_compute is not None
        )


class _Fault(ValueError):
    """Why a value cannot be used, and what to write instead."""


def read_wishes(annotations: Mapping[str, str]) -> tuple[Wishes, tuple[str, ...]]:
    """Return what the annotations of a pod wish for, and every fault with what to write instead.

    A wish with a fault is left out of the result.
    """
    faults: list[str] = []

    def read(key: str, parse: Callable[[str], _Value], default: _Value) -> _Value:
        text = annotations.get(key)
        if text is None:
            return default
        try:
            return parse(text)
        except _Fault as fault:
            faults.append(f"annotation {key}: {fault}")
            return default

    wishes = Wishes(
        products=read(PRODUCT, _products, ()),
        uuids=read(UUID, _devices, frozenset()),
        excluded=read(EXCLUDE_UUID, _devices, frozenset()),
        min_memory=read(MIN_MEMORY, _memory, 0),
        min_compute=read(MIN_COMPUTE, _compute, None),
        topology=read(TOPOLOGY, partial(_choice, Topology), None),
        policy=read(POLICY, partial(_choice, Policy), None),
    )
    return wishes, tuple(faults)


def admits(wishes: Wishes, gpu: Gpu, device: DeviceId, memory_bytes: int | None) -> bool:
    """Tell whether a pod may get a device: the GPU itself, or a MIG instance of it.

    `memory_bytes` is the device's own. What is not known of a GPU never satisfies a wish.
    """
    names = {device, gpu.uuid}
    if names & wishes.excluded or (wishes.uuids and not names & wishes.uuids):
        return False
    if wishes.min_memory and (memory_bytes is None or memory_bytes < wishes.min_memory):
        return False
    compute = gpu.compute_capability
    if wishes.min_compute is not None and (compute is None or compute < wishes.min_compute):
        return False
    return of_product(wishes, gpu)


def of_product(wishes: Wishes, gpu: Gpu) -> bool:
    """Tell whether a GPU is of a product that the pod wants, by NVML's name or its label form."""
    if not wishes.products:
        return True
    if gpu.product is None:
        return False
    name = gpu.product.casefold()
    # gpu-feature-discovery writes spaces as "-" in nvidia.com/gpu.product.
    forms = (name, name.replace(" ", "-"))
    globs = [glob.casefold() for glob in wishes.products]
    # Equal to a name that has brackets in it, as those of the PCI database do, is a match too.
    return any(form == glob or fnmatchcase(form, glob) for glob in globs for form in forms)


def memory_fault(size: int) -> str | None:
    """Return why no GPU can be meant by that many bytes of memory, or None."""
    if size < LEAST_MEMORY:
        meant = f"{size or 8}Gi" if size <= MOST_MEMORY >> 30 else f"{size}Mi"
        return f"that is {size} bytes; write the unit too, such as {meant}"
    if size > MOST_MEMORY:
        return f"no single GPU has that much memory; write at most {written(MOST_MEMORY)}"
    return None


def _entries(text: str) -> Iterator[str]:
    entries = [entry.strip() for entry in text.split(",")]
    if not any(entries):
        raise _Fault("it is empty; name something or remove the annotation")
    if "" in entries:
        number = entries.index("") + 1
        raise _Fault(f"entry {number} of {len(entries)} is empty; write one comma between two")
    unique = dict.fromkeys(entries)
    if len(unique) > MAX_ENTRIES:
        raise _Fault(f"{len(unique)} entries are too many; name at most {MAX_ENTRIES}")
    yield from unique


def _products(text: str) -> tuple[str, ...]:
    globs = tuple(_entries(text))
    for glob in globs:
        if len(glob) > MAX_GLOB or not glob.isprintable():
            raise _Fault(f"{glob[:40]!r} is no product; write names such as *H100*,NVIDIA L4")
    return globs


def _devices(text: str) -> frozenset[DeviceId]:
    devices = frozenset(DeviceId(entry) for entry in _entries(text))
    for device in sorted(devices):
        if not is_device_id(device):
            raise _Fault(
                f"{device[:64]!r} is no UUID; write GPU-… or MIG-… as `nvidia-smi -L` shows it"
            )
    return devices


def _memory(text: str) -> int:
    try:
        size = whole(text.strip())
    except QuantityError as error:
        raise _Fault(f"{error}; write the memory of one GPU, such as 40Gi") from error
    if fault := memory_fault(size):
        raise _Fault(fault)
    return size


def _compute(text: str) -> tuple[int, int]:
    match = _COMPUTE.fullmatch(text.strip())
    if match is None or not 1 <= int(match["major"]) <= _HIGHEST_COMPUTE:
        raise _Fault(f"{text[:40]!r} is no compute capability; write MAJOR.MINOR, such as 8.0")
    return int(match["major"]), int(match["minor"] or 0)


def _choice(kind: type[_Choice], text: str) -> _Choice:
    try:
        return kind(text.strip())
    except ValueError as error:
        raise _Fault(f"{text[:40]!r} is not known; write {' or '.join(kind)}") from error
