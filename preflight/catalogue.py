"""All checks of preflight, in the order in which they are told."""

from __future__ import annotations

from preflight.checks import cluster, neighbours
from preflight.question import Check

CHECKS: tuple[Check, ...] = (*cluster.CHECKS, *neighbours.CHECKS)
