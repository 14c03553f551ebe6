"""What a pod asks for that can be read, but that no GPU and no node can ever grant. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gpus.annotations import EXCLUDE_UUID, MIN_MEMORY, TOPOLOGY, UUID
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    GPU_RESOURCE,
    MIG_RESOURCE_PREFIX,
    SHARED_GPU_RESOURCE,
    ResourceName,
)
from gpus.wishes import MOST_MEMORY, Wishes

#: `1g.5gb`, `1g.5gb.me`, `1c.3g.20gb`: the number before `gb` is the memory, rounded.
_MIG_MEMORY = re.compile(r"(?:^|\.)([0-9]{1,4})gb(?:\.|$)", re.ASCII)


def contradictions(totals: Mapping[ResourceName, int], wishes: Wishes) -> Iterator[str]:
    """Yield every contradiction between what a pod asks for and what it wishes, and what to do.

    `totals` is what the whole pod needs at its peak; zero where that cannot be read.
    """
    yield from _of_shares(totals)
    yield from _of_uuids(totals, wishes)
    yield from _of_mig(totals, wishes)


def _mig(totals: Mapping[ResourceName, int]) -> list[ResourceName]:
    return [name for name in totals if name.startswith(MIG_RESOURCE_PREFIX)]


def _of_shares(totals: Mapping[ResourceName, int]) -> Iterator[str]:
    if GPU_MEMORY_RESOURCE not in totals:
        return
    share = totals[GPU_MEMORY_RESOURCE]
    if others := sorted(set(totals) - {GPU_MEMORY_RESOURCE}):
        yield (
            f"the pod asks for a share ({GPU_MEMORY_RESOURCE}) and for {', '.join(others)} too; "
            "ask for one of the two, or make two pods"
        )
    if share > MOST_MEMORY:
        yield (
            f"{GPU_MEMORY_RESOURCE}: all containers of a pod share one GPU, and none has the "
            f"{share} bytes that they need at one time; ask for less, or make several pods"
        )


def _of_uuids(totals: Mapping[ResourceName, int], wishes: Wishes) -> Iterator[str]:
    if not wishes.uuids:
        return
    named = wishes.uuids - wishes.excluded
    if not named:
        yield (
            f"annotation {EXCLUDE_UUID} names everything that {UUID} names; "
            "remove a UUID from one of the two"
        )
        return
    cards = sum(not device.startswith("MIG-") for device in named)
    wanted, mig = totals.get(GPU_RESOURCE, 0), _mig(totals)
    whole = wanted or totals.get(GPU_MEMORY_RESOURCE, 0)
    if whole and not cards:
        yield (
            f"annotation {UUID} names MIG instances only, but the pod asks for whole GPUs or a "
            f"share of one; name GPU-…, or ask for {MIG_RESOURCE_PREFIX}<profile>"
        )
    elif wanted > cards:
        yield (
            f"annotation {UUID} leaves {cards} GPUs to choose from, but the pod asks for {wanted}; "
            "name more, or ask for fewer"
        )
    instances = sum(totals[name] for name in mig)
    if not cards and instances > len(named):
        yield (
            f"annotation {UUID} leaves {len(named)} MIG instances to choose from, but the pod asks "
            f"for {instances}; name more, or ask for fewer"
        )


def _of_mig(totals: Mapping[ResourceName, int], wishes: Wishes) -> Iterator[str]:
    split = [name for name in totals if name == SHARED_GPU_RESOURCE] + _mig(totals)
    if split and wishes.topology is not None:
        yield (
            f"annotation {TOPOLOGY}: only whole GPUs are connected, {', '.join(split)} is not; "
            f"remove the annotation, or ask for {GPU_RESOURCE}"
        )
    for name in _mig(totals):
        size = _MIG_MEMORY.search(name.removeprefix(MIG_RESOURCE_PREFIX))
        # The name may round down by half a GiB (go-nvlib, GetMigProfileInfo).
        if size is not None and wishes.min_memory > (int(size[1]) + 1) << 30:
            yield (
                f"annotation {MIN_MEMORY}: {name} has about {size[1]}Gi; "
                "ask for a larger profile, or write less"
            )
