"""How the GPUs of a node reach each other, by NVML.

NVLinks to switches count for every pair whose peer to peer works through them, because a switch
joins all GPUs of the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpus.model import DeviceId, Link, PcieLevel
from nodeagent.inventory.binding import (
    MOST_NVLINKS,
    NVLINK_TO_SWITCH,
    P2P_NVLINK,
    Handle,
    NvmlError,
    value,
)

#: nvmlGpuTopologyLevel_t
_LEVELS = {
    0: PcieLevel.BOARD,
    10: PcieLevel.SINGLE_SWITCH,
    20: PcieLevel.MULTI_SWITCH,
    30: PcieLevel.HOST_BRIDGE,
    40: PcieLevel.NUMA_NODE,
    50: PcieLevel.SYSTEM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A GPU that answers, and where it is."""

    uuid: DeviceId
    index: int
    bdf: str | None
    handle: Handle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """Where the active NVLinks of one GPU end."""

    switches: int = 0
    gpus: Counter[str] = field(default_factory=Counter)


def read_links(
    gpus: Sequence[Located], *, note: Callable[[int], None]
) -> dict[DeviceId, tuple[Link, ...]]:
    """The links of each GPU to all the others, in their order.

    A pair of which nothing is known has none. `note` is told of whose links come next.
    """
    ends = {}
    for gpu in gpus:
        note(gpu.index)
        ends[gpu.uuid] = _ends(gpu.handle)
    links: dict[DeviceId, list[Link]] = {gpu.uuid: [] for gpu in gpus}
    for first in gpus:
        note(first.index)
        for second in gpus:
            if first is second:
                continue
            link = _link(first, second, ends)
            if link.nvlinks or link.pcie is not None:
                links[first.uuid].append(link)
    return {uuid: tuple(found) for uuid, found in links.items()}


def bdf_of(pci: Any) -> str | None:
    """The PCI address as sysfs writes it (`0000:01:00.0`) of an nvmlPciInfo_t."""
    domain, bus, device = (getattr(pci, name, -1) for name in ("domain", "bus", "device"))
    if not (0 <= domain <= 0xFFFFFFFF and 0 <= bus <= 0xFF and 0 <= device <= 0x1F):
        return None
    return f"{domain:04x}:{bus:02x}:{device:02x}.0"


def _ends(handle: Handle) -> _Ends:
    switches = 0
    gpus: Counter[str] = Counter()
    for number in range(MOST_NVLINKS):
        active = _ask("nvmlDeviceGetNvLinkState", handle, number)
        if active is None:
            break
        if not active:
            continue
        if _ask("nvmlDeviceGetNvLinkRemoteDeviceType", handle, number) == NVLINK_TO_SWITCH:
            switches += 1
        elif bdf := bdf_of(_ask("nvmlDeviceGetNvLinkRemotePciInfo", handle, number)):
            gpus[bdf] += 1
    return _Ends(switches=switches, gpus=gpus)


def _link(first: Located, second: Located, ends: dict[DeviceId, _Ends]) -> Link:
    near, far = ends[first.uuid], ends[second.uuid]
    # Links of a GPU split by MIG are down at its own end only.
    nvlinks = min(near.gpus[second.bdf or ""], far.gpus[first.bdf or ""])
    through_switches = min(near.switches, far.switches)
    if through_switches and _reach_each_other(first, second):
        nvlinks += through_switches
    level = _ask("nvmlDeviceGetTopologyCommonAncestor", first.handle, second.handle)
    pcie = _LEVELS.get(level) if level is not None else None
    return Link(peer=second.uuid, nvlinks=nvlinks, pcie=pcie)


def _reach_each_other(first: Located, second: Located) -> bool:
    # The fabric manager may have put them into different partitions. A driver that cannot tell
    # has no partitions.
    status = _ask("nvmlDeviceGetP2PStatus", first.handle, second.handle, P2P_NVLINK)
    return status in (0, None)


def _ask(function: str, *arguments: object) -> Any:
    """An answer, or None: a link may not exist, the other GPU may be lost. Neither hides a GPU."""
    try:
        return value(function, *arguments)
    except NvmlError:
        return None
