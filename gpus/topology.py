"""How well GPUs of one node are connected, and the best connected set to choose. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb

from gpus.model import DeviceId, Gpu, NodeInventory, PcieLevel

#: The weights of NVIDIA's go-gpuallocator (best-effort policy): one NVLink counts more than the
#: closest PCIe ancestor.
_PER_NVLINK = 100
_PCIE: Mapping[PcieLevel, int] = {
    PcieLevel.BOARD: 60,
    PcieLevel.SINGLE_SWITCH: 50,
    PcieLevel.MULTI_SWITCH: 40,
    PcieLevel.HOST_BRIDGE: 30,
    PcieLevel.NUMA_NODE: 20,
    PcieLevel.SYSTEM: 10,
}

#: Sets that are compared one by one; every choice out of 16 GPUs (at most 12,870) is below it.
#: Larger questions are answered by growing one set from each start, so time stays bounded.
EXHAUSTIVE_LIMIT = 20_000

_Pair = tuple[DeviceId, DeviceId]


def score_set(devices: Collection[DeviceId], inventory: NodeInventory) -> int:
    """Return how well whole GPUs are connected to each other: the sum over all pairs.

    Devices that the inventory does not hold as whole GPUs (MIG instances) add nothing.
    """
    return _Board.of(sorted(devices), inventory).score(devices)


def best_set(
    available: Collection[DeviceId],
    *,
    size: int,
    inventory: NodeInventory,
    must_include: Collection[DeviceId] = (),
) -> tuple[DeviceId, ...]:
    """Choose `size` of `available` (with `must_include` among them), best connected first.

    Among equals, the set wins that costs the GPUs left behind the fewest connections, then the
    one with the lowest indexes. Exact up to `EXHAUSTIVE_LIMIT` candidate sets. Raises
    `ValueError` when no such set exists.
    """
    fixed = tuple(dict.fromkeys(must_include))
    if not len(fixed) <= size <= len(set(available)) or not set(fixed) <= set(available):
        raise ValueError(
            f"cannot choose {size} of {len(set(available))} devices with {len(fixed)} prescribed"
        )
    index = {gpu.uuid: gpu.index for gpu in inventory.gpus}
    ordered = sorted(set(available), key=lambda device: (index.get(device, len(index)), device))
    board = _Board.of(ordered, inventory)
    free = [device for device in ordered if device not in fixed]
    candidates: Iterable[tuple[DeviceId, ...]]
    if comb(len(free), size - len(fixed)) <= EXHAUSTIVE_LIMIT:
        candidates = (fixed + more for more in combinations(free, size - len(fixed)))
    else:
        candidates = board.grown(fixed, free, size)
    # max keeps the first of equals, and candidates come in the order of indexes.
    chosen = max(candidates, key=board.worth)
    return tuple(device for device in ordered if device in chosen)


@dataclass(frozen=True, slots=True)
class _Board:
    """Scores of pairs, and of each device towards all others that are available."""

    pairs: Mapping[_Pair, int]
    reach: Mapping[DeviceId, int]

    @classmethod
    def of(cls, devices: Collection[DeviceId], inventory: NodeInventory) -> _Board:
        gpus = {gpu.uuid: gpu for gpu in inventory.gpus}
        pairs: dict[_Pair, int] = {}
        for a, b in combinations(devices, 2):
            known = a in gpus and b in gpus
            pairs[a, b] = pairs[b, a] = _pair(gpus[a], gpus[b]) if known else 0
        reach = {a: sum(pairs[a, b] for b in devices if b != a) for a in devices}
        return cls(pairs, reach)

    def score(self, chosen: Collection[DeviceId]) -> int:
        pairs = self.pairs
        return sum(pairs[pair] for pair in combinations(chosen, 2))

    def worth(self, chosen: Collection[DeviceId]) -> tuple[int, int]:
        """Order of candidates: own connections, then what the rest keeps.

        The rest's score is the whole minus what the chosen reach plus what they share; the whole
        is the same for all and the share is the first member.
        """
        return self.score(chosen), -sum(self.reach[device] for device in chosen)

    def grown(
        self, fixed: tuple[DeviceId, ...], free: list[DeviceId], size: int
    ) -> Iterator[tuple[DeviceId, ...]]:
        """One set from each start, adding the device that is best connected to those chosen."""
        for start in free:
            chosen = (*fixed, start)
            while len(chosen) < size:
                left = (device for device in free if device not in chosen)
                chosen = (*chosen, max(left, key=lambda device: self._gain(device, chosen)))
            yield chosen

    def _gain(self, device: DeviceId, chosen: tuple[DeviceId, ...]) -> tuple[int, int]:
        return sum(self.pairs[device, other] for other in chosen), -self.reach[device]


def _pair(a: Gpu, b: Gpu) -> int:
    link = next((link for link in a.links if link.peer == b.uuid), None)
    if link is None:
        link = next((link for link in b.links if link.peer == a.uuid), None)
    nvlinks = link.nvlinks * _PER_NVLINK if link else 0
    if link is not None and link.pcie is not None:
        return nvlinks + _PCIE[link.pcie]
    if a.numa_node is None or b.numa_node is None:
        return nvlinks
    same = a.numa_node == b.numa_node
    return nvlinks + _PCIE[PcieLevel.NUMA_NODE if same else PcieLevel.SYSTEM]
