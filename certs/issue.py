"""Carries a plan out: makes the certificates and the exact content of every Secret. No IO."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from certs import authority as x509
from certs.authority import KeyPair
from certs.names import (
    AUTHORITY_SECRET,
    BUNDLE,
    CERTIFICATE,
    KEY,
    RETIRING_CERTIFICATE,
    RETIRING_KEY,
    TRUSTED_SINCE,
    Leaf,
)
from certs.plan import Plan
from certs.rules import Rules
from certs.state import Content, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one certificate, and what its Secret is to hold."""

    name: str
    secret: str
    why: Why
    not_after: datetime
    data: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The wanted content of all Secrets; the authority comes first."""

    outcomes: tuple[Outcome, ...]

    @property
    def bundle(self) -> bytes:
        """The authorities that whoever calls us must trust."""
        return self.outcomes[0].data[BUNDLE]


def carry_out(plan: Plan, leaves: Sequence[Leaf], *, now: datetime, rules: Rules) -> Issued:
    """Issue what the plan asks for, and keep what it keeps."""
    newest = plan.authority.newest or x509.new_authority(now=now, lifetime=rules.authority)
    bundle = b"".join((newest.certificate, *plan.authority.former))
    authority = _outcome(
        "authority", AUTHORITY_SECRET, why=plan.authority.why, pair=newest, bundle=bundle
    )
    authority = _with_history(authority, plan)
    signer = plan.authority.retiring or newest
    outcomes = [authority]
    for leaf, step in zip(leaves, plan.leaves, strict=True):
        lifetime = rules.lifetime(leaf.subject.usage)
        pair = step.kept or x509.issue(signer, leaf.subject, now=now, lifetime=lifetime)
        outcomes.append(_outcome(leaf.name, leaf.secret, why=step.why, pair=pair, bundle=bundle))
    return Issued(outcomes=tuple(outcomes))


def _outcome(name: str, secret: str, *, why: Why, pair: KeyPair, bundle: bytes) -> Outcome:
    return Outcome(
        name=name,
        secret=secret,
        why=why,
        not_after=x509.examine(pair).not_after,
        data={CERTIFICATE: pair.certificate, KEY: pair.key, BUNDLE: bundle},
    )


def _with_history(outcome: Outcome, plan: Plan) -> Outcome:
    data = dict(outcome.data)
    if (retiring := plan.authority.retiring) is not None:
        data |= {RETIRING_CERTIFICATE: retiring.certificate, RETIRING_KEY: retiring.key}
    if (since := plan.authority.trusted_since) is not None:
        data[TRUSTED_SINCE] = since.isoformat().encode()
    return dataclasses.replace(outcome, data=data)
