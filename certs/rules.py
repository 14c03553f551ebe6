"""How long certificates are valid, and how long a change takes to be known everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from certs.authority import Facts, Usage

#: A renewal begins when a third of a lifetime is left. In this time everybody must have read what
#: is new, with as much again for runs that come late.
_LEAF = 6
#: In that of an authority it must be seen in every bundle, then be known to all, then sign, and
#: what it signed be read.
_AUTHORITY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`propagation` is the time after which everybody has read a bundle or certificate that was
    written: kubelet brings a changed Secret into running pods within a minute and a half.

    Raises ValueError for lifetimes that leave no time for a renewal.
    """

    authority: timedelta
    server: timedelta
    client: timedelta
    propagation: timedelta

    def __post_init__(self) -> None:
        if self.propagation <= timedelta(0):
            raise ValueError("--propagation must be more than 0")
        if self.authority < _AUTHORITY * self.propagation:
            raise ValueError(f"--ca-lifetime must be at least {_AUTHORITY} times --propagation")
        if min(self.server, self.client) < _LEAF * self.propagation:
            raise ValueError(
                f"--server-lifetime and --client-lifetime must be at least {_LEAF} times "
                "--propagation"
            )

    def lifetime(self, usage: Usage) -> timedelta:
        """Return how long a new leaf is valid."""
        return self.server if usage is Usage.SERVER else self.client


def part_of_life(facts: Facts, share: float) -> datetime:
    """Return when a certificate has lived this share of its life, from 0 to 1."""
    return facts.made + (facts.not_after - facts.made) * share


def is_due(facts: Facts, *, now: datetime) -> bool:
    """Tell whether a certificate is to be renewed: after 2/3 of its lifetime."""
    return now >= facts.made + (facts.not_after - facts.made) * 2 / 3
