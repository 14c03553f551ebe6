"""Lengths of time as kubectl writes them. Pure."""

from __future__ import annotations

from datetime import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_YEAR = 365 * _DAY


def age(since: datetime | None, now: datetime) -> str:
    """Return how long ago that was; `<unknown>` without a moment, 0s for one in the future."""
    return "<unknown>" if since is None else length((now - since).total_seconds())


def length(seconds: float) -> str:
    """Write seconds with one unit or two (k8s.io/apimachinery/pkg/util/duration HumanDuration)."""
    whole = max(0, int(seconds))
    # Below each limit: the larger unit, and the smaller one that is told beside it.
    for limit, unit, name, rest, rest_name in (
        (2 * _MINUTE, 1, "s", 0, ""),
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    ):
        if whole < limit:
            small = whole % unit // rest if rest else 0
            return f"{whole // unit}{name}" + (f"{small}{rest_name}" if small else "")
    return f"{whole // _YEAR}y"
