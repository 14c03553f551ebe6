"""Which of the nodes that fit is best. A strategy is a function from a fit to its rank."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import assert_never

from extender.placement.fit import Fit

#: The higher, the better; ranks of one strategy compare across nodes.
Rank = Callable[[Fit], int]

#: More than the devices of any node.
_BREAKS_WHOLE = 1 << 20


class Policy(StrEnum):
    """How pods are spread over nodes."""

    BINPACK = "binpack"
    SPREAD = "spread"


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
    """Fill what is used most; a vacant node is broken up last, unless the pod takes all of it."""
    return -fit.left - (_BREAKS_WHOLE if fit.vacant and fit.left else 0)


def spread(fit: Fit) -> int:
    """Use what is used least."""
    return fit.left
