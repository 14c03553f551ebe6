"""Whether the holder of a Lease still speaks. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from kube.objects import Lease

#: Seconds beyond a Lease's duration for clocks that differ and for a busy API server.
_GRACE = 5.0
#: Seconds; where a Lease does not say. Kubelet's own.
_DURATION = 40


def is_silent(lease: Lease, *, now: datetime) -> bool:
    """Tell whether it was not renewed in time, or was handed back. Unreadable times are silence."""
    renewed = _moment(lease.spec.renew_time)
    if renewed is None or not lease.spec.holder_identity:
        return True
    duration = lease.spec.lease_duration_seconds or _DURATION
    return (now - renewed).total_seconds() > duration + _GRACE


def seconds_since(text: str | None, *, now: datetime) -> float | None:
    """Return how long ago a moment was, None where it cannot be read."""
    moment = _moment(text)
    return None if moment is None else (now - moment).total_seconds()


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
