"""What to issue: a pure function of what exists, what is wanted, and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from certs.authority import KeyPair, expiry, is_issued_by
from certs.names import Leaf
from certs.rules import Rules, is_due
from certs.state import Content, State, Usable, Why, usable
from certs.succession import Succession, succession


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to happen to one leaf; `pair` is the one that exists, if it is usable."""

    why: Why
    pair: KeyPair | None = None

    @property
    def kept(self) -> KeyPair | None:
        """The certificate that stays, or None when one is to be issued."""
        return self.pair if self.why in (Why.KEPT, Why.WAITING) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the succession of authorities stands, and one step for each leaf, in the order given.

    Bundles are to be written before leaves. What is to be done after that and a wait is found by
    the next plan.
    """

    authority: Succession
    leaves: tuple[Step, ...]


def make_plan(
    state: State, leaves: Sequence[Leaf], *, now: datetime, rules: Rules, force: bool = False
) -> Plan:
    """Return what to do now; with `force`, issue all leaves."""
    authority = succession(state, tuple(leaves), now=now, rules=rules)
    steps = tuple(
        _leaf(state.secrets.get(leaf.secret), leaf, authority=authority, now=now, force=force)
        for leaf in leaves
    )
    return Plan(authority=authority, leaves=steps)


def _leaf(
    held: Content | None, leaf: Leaf, *, authority: Succession, now: datetime, force: bool
) -> Step:
    if held is None:
        return Step(why=Why.MISSING)
    found = usable(held, now=now)
    if found is None or found.facts.subject is None:
        return Step(why=Why.UNUSABLE)
    if now >= found.facts.not_after:
        return Step(why=Why.EXPIRED)
    certificate = found.pair.certificate
    issuers = [pem for pem in authority.trusted if is_issued_by(certificate, pem)]
    if not issuers:
        return Step(why=Why.UNUSABLE)
    # It is in service: from here on it must not be replaced by one that somebody does not trust.
    signer = authority.retiring or authority.newest
    by_signer = signer is not None and signer.certificate in issuers
    why = _wish(found, leaf, issuer=None if by_signer else issuers[0], now=now, force=force)
    may = by_signer or authority.everybody_trusts(signer)
    return Step(why=why if why is Why.KEPT or may else Why.WAITING, pair=found.pair)


def _wish(found: Usable, leaf: Leaf, *, issuer: bytes | None, now: datetime, force: bool) -> Why:
    """Return what becomes of a leaf in service; `issuer` is told where it is not the signer."""
    if found.facts.subject != leaf.subject:
        return Why.NAMES
    # One that ends with its issuer may have a short life, and another can now give it a full one.
    if issuer is not None and found.facts.not_after == expiry(issuer):
        return Why.DUE
    if is_due(found.facts, now=now):
        return Why.DUE
    return Why.FORCED if force else Why.KEPT
