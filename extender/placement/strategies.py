"""Which of the nodes that fit is best. A strategy is a function from a fit to its rank.

Both send a pod to the least capable GPUs that will do, before all else: who wishes for more says
so, and finds the better GPUs free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from extender.placement.fit import Fit
from gpus.wishes import Policy

#: The higher, the better; ranks of one strategy compare across nodes.
Rank = Callable[[Fit], int]

#: More than the devices of any node, and than the MiB of any GPU.
_MOST_LEFT = 1 << 24
#: More than any level.
_MOST_LEVEL = 1 << 34


def strategy(policy: Policy) -> Rank:
    """Return the function of a policy."""
    match policy:
        case Policy.BINPACK:
            return binpack
        case Policy.SPREAD:
            return spread
        case _:
            assert_never(policy)


def binpack(fit: Fit) -> int:
    """Fill what is used most.

    Last are broken up: GPUs that nobody uses, for a share; vacant nodes, unless the pod takes all
    of it; and whole NVLink islands.
    """
    steps = fit.level + _MOST_LEVEL * fit.starts
    steps = 2 * (2 * steps + (fit.vacant and fit.left > 0)) + fit.breaks
    return -fit.left - _MOST_LEFT * steps


def spread(fit: Fit) -> int:
    """Use what is used least."""
    return fit.left - _MOST_LEFT * fit.level
