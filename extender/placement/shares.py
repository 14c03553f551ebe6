"""Shares of GPUs, by memory: which GPU has room for one more.

A GPU that is held in shares is filled up before another one is started, the fullest first that
still has room; so whole GPUs stay whole for those who need them.
"""

from __future__ import annotations

from dataclasses import dataclass

from extender.placement.layout import Layout, Mask, bits, union
from extender.placement.picks import pick
from extender.placement.reasons import Reason
from extender.placement.state import NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Room on a GPU: the bytes that stay free there, and whether nobody uses it yet."""

    place: int
    left: int
    starts: bool


def choose_share(
    size: int, state: NodeState, layout: Layout, *, admitted: tuple[Mask, Mask]
) -> Share | Reason:
    """Choose the GPU for a share of `size` bytes, or tell why there is none.

    `admitted` are the devices of a wanted product, and those that meet all wishes.
    """
    product, meets = admitted
    if layout.whole and not layout.whole & product:
        return Reason.OTHER_PRODUCT
    large = layout.whole & meets & layout.of_memory(size)
    if not large:
        return Reason.OTHER_KIND
    if not large & layout.healthy:
        return Reason.UNHEALTHY
    left = room(state, layout, large)
    roomy = {place: free for place, free in left.items() if free >= size}
    if not roomy:
        return Reason.NOT_ENOUGH if any(free > 0 for free in left.values()) else Reason.IN_USE
    started = {place: free for place, free in roomy.items() if place in state.shares}
    if started:
        place = min(started, key=lambda place: (started[place], place))
        return Share(place=place, left=started[place] - size, starts=False)
    best = pick(layout, union(1 << place for place in roomy), 1) or 0
    place = best.bit_length() - 1
    return Share(place=place, left=roomy[place] - size, starts=True)


def room(state: NodeState, layout: Layout, among: Mask) -> dict[int, int]:
    """Return the free bytes of each healthy GPU of a set that nobody has to himself."""
    found = {place: layout.slots[place].memory or 0 for place in bits(among & state.open)}
    for place, used in state.shares.items():
        if (among & layout.healthy) >> place & 1:
            found[place] = (layout.slots[place].memory or 0) - used
    return found
