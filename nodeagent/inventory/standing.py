"""How a GPU stands over time: healthy, or not, since when and until when. Pure.

A GPU that failed is not given out again at once when its failure is no longer seen: it must show
none for a while, the longer the more often it failed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from gpus.model import Health

#: What `Standing.shown` puts behind the reason of a failure that is no longer seen.
_GONE = "; not seen since "


class Moment(NamedTuple):
    """Now: seconds that only grow, for measuring, and the time of day, for people."""

    monotonic: float
    wall: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one look says about a GPU. `weight` multiplies how long it must show nothing."""

    health: Health = Health.HEALTHY
    reason: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDown:
    """How long a GPU that failed must show no failure, in seconds.

    It doubles with each failure that comes within `memory` of the end of the one before, up to
    `longest`.
    """

    base: float = 60.0
    longest: float = 3600.0
    memory: float = 24 * 3600.0

    def length(self, strikes: int, weight: float) -> float:
        """Seconds after that many failures."""
        doublings = min(max(strikes - 1, 0), 20)
        return min(self.base * weight * 2.0**doublings, max(self.longest, self.base))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A GPU's health by all that was seen of it.

    `since` is when it became what it is, None while it is healthy. `quiet` is the moment from which
    on nothing was seen of the failure, None while it is seen; `ended` when it was last healthy
    again (monotonic seconds).
    """

    health: Health = Health.HEALTHY
    reason: str = ""
    since: datetime | None = None
    weight: float = 1.0
    quiet: Moment | None = None
    strikes: int = 0
    ended: float | None = None

    def shown(self, rule: HoldDown) -> str:
        """The reason as people read it; it stays the same as long as nothing happens."""
        if self.quiet is None or self.health is Health.HEALTHY:
            return self.reason
        held = rule.length(self.strikes, self.weight)
        return f"{self.reason}{_GONE}{self.quiet.wall:%Y-%m-%dT%H:%M:%SZ}, held for {held:.0f} s"


def advance(standing: Standing, verdict: Verdict, *, now: Moment, rule: HoldDown) -> Standing:
    """The standing after another look."""
    if verdict.health is Health.HEALTHY:
        return _quieter(standing, now=now, rule=rule)
    if verdict.health is Health.UNMONITORED and standing.health in (Health.FAULTY, Health.LOST):
        # Whether the failure is still there cannot be seen: it waits.
        return replace(standing, quiet=None)
    if standing.health is verdict.health:
        # A lost GPU is lost in as many ways as there are questions.
        reason = standing.reason if verdict.health is Health.LOST else verdict.reason
        weight = max(verdict.weight, standing.weight)
        return replace(standing, reason=reason, weight=weight, quiet=None)
    fresh = standing.health in (Health.HEALTHY, Health.UNMONITORED)
    return Standing(
        health=verdict.health,
        reason=verdict.reason,
        since=_seconds(now.wall),
        weight=verdict.weight,
        strikes=_strikes(standing, verdict, now=now, rule=rule) if fresh else standing.strikes,
        ended=standing.ended,
    )


def recalled(
    health: Health, reason: str, *, since: datetime | None, weight: float, now: Moment
) -> Standing:
    """The standing of a GPU that an earlier agent called unhealthy; raises nothing."""
    return Standing(
        health=health,
        reason=cause_of(reason),
        since=since or _seconds(now.wall),
        weight=weight,
        strikes=0 if health is Health.UNMONITORED else 1,
    )


def cause_of(reason: str) -> str:
    """A reason as it was while the failure was seen."""
    return reason.partition(_GONE)[0]


def _strikes(standing: Standing, verdict: Verdict, *, now: Moment, rule: HoldDown) -> int:
    if verdict.health is Health.UNMONITORED:
        return standing.strikes
    long_ago = standing.ended is None or now.monotonic - standing.ended > rule.memory
    return 1 if long_ago else standing.strikes + 1


def _quieter(standing: Standing, *, now: Moment, rule: HoldDown) -> Standing:
    match standing.health:
        case Health.HEALTHY:
            return standing
        case Health.UNMONITORED:
            return Standing(strikes=standing.strikes, ended=standing.ended)
    if standing.quiet is None:
        standing = replace(standing, quiet=now._replace(wall=_seconds(now.wall)))
    waited = now.monotonic - standing.quiet.monotonic if standing.quiet else 0.0
    if waited < rule.length(standing.strikes, standing.weight):
        return standing
    return Standing(strikes=standing.strikes, ended=now.monotonic)


def _seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
