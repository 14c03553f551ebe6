"""Carries a plan out: makes the certificates and the exact content of every Secret. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certs import authority as x509
from certs.authority import KeyPair
from certs.names import AUTHORITY_SECRET, BUNDLE, CERTIFICATE, KEY, Leaf
from certs.plan import Plan, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long new certificates are valid."""

    authority: timedelta
    leaf: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one certificate."""

    name: str
    secret: str
    why: Why
    not_after: datetime
    data: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The wanted content of all Secrets; the authority comes first."""

    outcomes: tuple[Outcome, ...]

    @property
    def bundle(self) -> bytes:
        """The authorities that whoever calls us must trust."""
        return self.outcomes[0].data[BUNDLE]


def carry_out(plan: Plan, leaves: Sequence[Leaf], *, now: datetime, lifetimes: Lifetimes) -> Issued:
    """Issue what the plan asks for, and keep what it keeps."""
    ca = plan.authority.kept or x509.new_authority(now=now, lifetime=lifetimes.authority)
    bundle = b"".join((ca.certificate, *plan.former))
    outcomes = [
        _outcome("authority", AUTHORITY_SECRET, why=plan.authority.why, pair=ca, bundle=bundle)
    ]
    for leaf, step in zip(leaves, plan.leaves, strict=True):
        pair = step.kept or x509.issue(ca, leaf.subject, now=now, lifetime=lifetimes.leaf)
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
