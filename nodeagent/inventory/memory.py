"""What is known of the GPUs of a node over time; pure.

A GPU that was seen once is never forgotten: when it stops answering, it stays, as lost or faulty,
with what was known of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count

from gpus.model import DeviceId, Gpu, Health


def with_remembered(
    present: Mapping[DeviceId, Gpu],
    *,
    known: Mapping[DeviceId, Gpu],
    incomplete: Collection[DeviceId],
) -> dict[DeviceId, Gpu]:
    """The present GPUs, of which the incomplete ones keep the facts that were known."""
    return {
        uuid: (
            replace(
                known[uuid], index=gpu.index, health=gpu.health, health_reason=gpu.health_reason
            )
            if uuid in incomplete and uuid in known
            else gpu
        )
        for uuid, gpu in present.items()
    }


def with_missing(
    present: Mapping[DeviceId, Gpu],
    *,
    known: Mapping[DeviceId, Gpu],
    failures: Mapping[DeviceId, tuple[Health, str]],
) -> dict[DeviceId, Gpu]:
    """The present GPUs and, with their reasons, those that were known and do not answer now.

    A missing GPU keeps its index unless another one has it now.
    """
    indices = {gpu.index for gpu in present.values()}
    merged = dict(present)
    for uuid, gpu in known.items():
        if uuid in present:
            continue
        health, reason = failures.get(uuid, (Health.LOST, "NVML no longer lists it"))
        index = gpu.index if gpu.index not in indices else _free_index(indices)
        indices.add(index)
        merged[uuid] = replace(gpu, index=index, health=health, health_reason=reason)
    return merged


def with_faults(
    gpus: Mapping[DeviceId, Gpu], faults: Mapping[DeviceId, str]
) -> dict[DeviceId, Gpu]:
    """The GPUs, faulty for these reasons where they looked healthy."""
    return {
        uuid: (
            replace(gpu, health=Health.FAULTY, health_reason=faults[uuid])
            if gpu.health is Health.HEALTHY and uuid in faults
            else gpu
        )
        for uuid, gpu in gpus.items()
    }


def lost(gpus: Iterable[Gpu]) -> Iterator[DeviceId]:
    """The GPUs that are lost."""
    return (gpu.uuid for gpu in gpus if gpu.health is Health.LOST)


def _free_index(taken: set[int]) -> int:
    return next(index for index in count(len(taken)) if index not in taken)
