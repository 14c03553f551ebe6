"""How well GPUs of one node are connected, and the best connected set to choose. Pure.

Sets are compared by, one after the other: how many of their pairs NVLink joins, how many NVLinks
that is, how close their pairs are on PCIe, how many of their pairs share a NUMA node. No number of
closer PCIe pairs outweighs an NVLink. Pairs come before links because one GPU without NVLink slows
all others down (NCCL's rings run as fast as their slowest hop); so a set in which NVLink joins
every pair is found wherever there is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import accumulate, combinations
from math import comb

from gpus.model import DeviceId, Gpu, Link, NodeInventory, PcieLevel

#: Closer than a NUMA node, by nvmlGpuTopologyLevel_t.
_PCIE: Mapping[PcieLevel | None, int] = {
    PcieLevel.BOARD: 4,
    PcieLevel.SINGLE_SWITCH: 3,
    PcieLevel.MULTI_SWITCH: 2,
    PcieLevel.HOST_BRIDGE: 1,
}
#: More than any two GPUs have (18 with NVLink 5); bounds what an inventory can claim.
_MOST_NVLINKS = 255

# Each criterion in its own digits, so that one number compares as all of them would. The sums over
# a whole set stay below the next digit: 255 links times the pairs of 256 GPUs are under 2^24.
_SAME_NUMA = 1
_PER_PCIE = 1 << 24
_PER_NVLINK = 1 << 48
_JOINED = 1 << 72
#: Above the sum over any set: what a choice costs the GPUs left behind counts less than any of it.
_OWN = 1 << 100

#: Up to this many sets the best one is certain: every choice out of 16 GPUs (at most 12,870).
#: Of more sets, the best of those grown from each GPU is taken, so time stays bounded.
EXHAUSTIVE_LIMIT = 20_000


def score_set(devices: Collection[DeviceId], inventory: NodeInventory) -> int:
    """Return how well whole GPUs are connected to each other; larger is better.

    Scores compare between sets of one size. Devices that the inventory does not hold as whole
    GPUs (MIG instances) add nothing.
    """
    gpus = {gpu.uuid: gpu for gpu in inventory.gpus}
    known = [gpus[device] for device in devices if device in gpus]
    return sum(_pair(a, b) for a, b in combinations(known, 2))


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
    fixed = set(must_include)
    if not len(fixed) <= size <= len(set(available)) or not fixed <= set(available):
        raise ValueError(
            f"cannot choose {size} of {len(set(available))} devices with {len(fixed)} prescribed"
        )
    index = {gpu.uuid: gpu.index for gpu in inventory.gpus}
    ordered = sorted(set(available), key=lambda device: (index.get(device, len(index)), device))
    board = _Board.of(ordered, inventory)
    start = _Partial.of(board, [at for at, device in enumerate(ordered) if device in fixed])
    chosen = board.best(start, size)
    return tuple(ordered[at] for at in sorted(chosen))


@dataclass(frozen=True, slots=True)
class _Partial:
    """A set on its way: its value, and what each device would add to it."""

    chosen: tuple[int, ...]
    value: int
    gains: Sequence[int]

    @classmethod
    def of(cls, board: _Board, fixed: Sequence[int]) -> _Partial:
        partial = cls((), 0, board.costs)
        for at in fixed:
            partial = partial.with_(at, board)
        return partial

    def with_(self, at: int, board: _Board) -> _Partial:
        gains = [gain + pair for gain, pair in zip(self.gains, board.pairs[at], strict=True)]
        return _Partial((*self.chosen, at), self.value + self.gains[at], gains)


@dataclass(frozen=True, slots=True)
class _Board:
    """Devices by position: the worth of each pair, and what taking each one costs the others.

    The value of a set is the sum over its pairs less the cost of its members. The connections
    that the devices left behind keep are all there are, less the costs, plus the pairs taken; the
    first is the same for all sets and the last is the first criterion, so the costs decide.
    """

    pairs: Sequence[Sequence[int]]
    costs: Sequence[int]
    #: Of each device, what its best pairs are worth together: of none, of one, of two, …
    peaks: Sequence[Sequence[int]]

    @classmethod
    def of(cls, devices: Sequence[DeviceId], inventory: NodeInventory) -> _Board:
        gpus = {gpu.uuid: gpu for gpu in inventory.gpus}
        pairs = [[0] * len(devices) for _ in devices]
        for (i, a), (j, b) in combinations(enumerate(devices), 2):
            if a in gpus and b in gpus:
                pairs[i][j] = pairs[j][i] = _pair(gpus[a], gpus[b])
        costs = [-sum(row) for row in pairs]
        weighted = [[pair * _OWN for pair in row] for row in pairs]
        peaks = [[0, *accumulate(sorted(row, reverse=True))] for row in weighted]
        return cls(weighted, costs, peaks)

    def best(self, start: _Partial, size: int) -> tuple[int, ...]:
        free = [at for at in range(len(self.costs)) if at not in start.chosen]
        missing = size - len(start.chosen)
        grown = self._grown(start, free, size)
        if comb(len(free), missing) > EXHAUSTIVE_LIMIT:
            return grown.chosen
        # One less than what is known to be possible: the first set of that value is found again,
        # and it is the one with the lowest indexes.
        found = self._search(start, free, missing, above=grown.value - 1)
        return found.chosen if found is not None else grown.chosen

    def _grown(self, start: _Partial, free: Sequence[int], size: int) -> _Partial:
        """The best of the sets that begin at each device and take the best connected one next."""
        best = start
        for first in free if len(start.chosen) < size else ():
            partial = start.with_(first, self)
            left = [at for at in free if at != first]
            while len(partial.chosen) < size:
                gains = partial.gains
                following = max(left, key=lambda at: gains[at])
                left.remove(following)
                partial = partial.with_(following, self)
            if best is start or partial.value > best.value:
                best = partial
        return best

    def _search(
        self, partial: _Partial, free: Sequence[int], missing: int, *, above: int
    ) -> _Partial | None:
        """The best set that is worth more than `above`, or None; sets in the order of indexes."""
        if missing == 0:
            return partial if partial.value > above else None
        best = None
        for number in range(len(free) - missing + 1):
            rest = free[number:]
            if 2 * (above - partial.value) >= self._at_most(partial.gains, rest, missing):
                break
            found = self._search(
                partial.with_(free[number], self), free[number + 1 :], missing - 1, above=above
            )
            if found is not None:
                best, above = found, found.value
        return best

    def _at_most(self, gains: Sequence[int], free: Sequence[int], missing: int) -> int:
        """Twice a bound of what `missing` of `free` can add: each with the pairs best for it."""
        others, peaks = missing - 1, self.peaks
        return sum(nlargest(missing, [2 * gains[at] + peaks[at][others] for at in free]))


def _pair(a: Gpu, b: Gpu) -> int:
    link = _link(a, b) or _link(b, a) or Link(peer=b.uuid)
    nvlinks = min(link.nvlinks, _MOST_NVLINKS)
    joined = _JOINED + nvlinks * _PER_NVLINK if nvlinks else 0
    return joined + _PCIE.get(link.pcie, 0) * _PER_PCIE + _same_numa(a, b, link) * _SAME_NUMA


def _link(a: Gpu, b: Gpu) -> Link | None:
    return next((link for link in a.links if link.peer == b.uuid), None)


def _same_numa(a: Gpu, b: Gpu, link: Link) -> bool:
    """Tell whether two GPUs share a NUMA node: as PCIe says, else as the two say."""
    if link.pcie is not None:
        return link.pcie is not PcieLevel.SYSTEM
    return a.numa_node is not None and a.numa_node == b.numa_node
