"""What to issue: a pure function of what exists, what is wanted, and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from certs.authority import KeyPair, is_issued_by
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
    if not any(is_issued_by(certificate, trusted) for trusted in authority.trusted):
        return Step(why=Why.UNUSABLE)
    # It is in service: from here on it must not be replaced by one that somebody does not trust.
    why = _wish(found, leaf, now=now, force=force)
    signer = authority.retiring or authority.newest
    by_signer = signer is not None and is_issued_by(certificate, signer.certificate)
    may = by_signer or authority.everybody_trusts(signer)
    return Step(why=why if why is Why.KEPT or may else Why.WAITING, pair=found.pair)


def _wish(found: Usable, leaf: Leaf, *, now: datetime, force: bool) -> Why:
    if found.facts.subject != leaf.subject:
        return Why.NAMES
    if is_due(found.facts, now=now):
        return Why.DUE
    return Why.FORCED if force else Why.KEPT
