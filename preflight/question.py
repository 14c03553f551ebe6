"""A check of preflight: the doctor's question, answered from other facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from doctor.findings import Finding, Outcome, Question, Result
from preflight.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Question):
    """A question about the cluster before the install."""

    look: Callable[[Surroundings], Result]


def ask(checks: Sequence[Check], seen: Surroundings) -> tuple[Finding, ...]:
    """Return what all checks found, in their order."""
    return tuple(Finding(check=check, result=check.look(seen)) for check in checks)


def is_ready(findings: Sequence[Finding]) -> bool:
    """Tell whether nothing stands against the install."""
    return all(found.result.outcome is not Outcome.BROKEN for found in findings)
