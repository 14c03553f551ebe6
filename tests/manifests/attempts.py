"""What somebody tries at the API server, and who is expected to refuse it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from tests.manifests.door import Request

#: Where nobody refuses.
ALLOWED = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row of a table; `by` is a policy, `RBAC`, or `ALLOWED`."""

    what: str
    who: str
    request: Request
    by: str


def refused(what: str, who: str, request: Request, *, by: str) -> Attempt:
    """An attack."""
    return Attempt(what=what, who=who, request=request, by=by)


def allowed(what: str, who: str, request: Request) -> Attempt:
    """The control: the same, done by whom it belongs to, or without what makes it an attack."""
    return Attempt(what=what, who=who, request=request, by=ALLOWED)


def rows(attacks: Mapping[str, Sequence[Attempt]]) -> list[object]:
    """All attempts of the attacks, as parameters of a test.

    An attack without a control would be "refused" by a policy that refuses everything, and one
    without a refusal proves nothing.
    """
    parameters: list[object] = []
    for attack, attempts in attacks.items():
        if {attempt.by == ALLOWED for attempt in attempts} != {True, False}:
            raise ValueError(f"{attack} needs what is refused and what is allowed")
        parameters += [
            pytest.param(attempt, id=f"{attack}: {attempt.what}, by {attempt.who}")
            for attempt in attempts
        ]
    return parameters
