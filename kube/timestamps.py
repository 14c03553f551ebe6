"""Moments as Kubernetes writes them. The clock is read by the caller."""

from __future__ import annotations

from datetime import UTC, datetime


def micro_time(moment: datetime) -> str:
    """Write an aware datetime as metav1.MicroTime, the type of Lease times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time(moment: datetime) -> str:
    """Write an aware datetime as metav1.Time, whole seconds, the type of Event times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
