"""What to issue: a pure function of what exists, what is wanted, and the time.

Broken and foreign content counts as missing, so that one run always ends in a working state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certs.authority import CertificateError, Facts, KeyPair, authorities, examine, is_issued_by
from certs.names import AUTHORITY_SECRET, BUNDLE, CERTIFICATE, KEY, Leaf

#: What the Secrets hold, by name of Secret; those that do not exist are absent.
State = Mapping[str, Mapping[str, bytes]]


class Why(StrEnum):
    """Why a certificate is issued, or that it is kept."""

    KEPT = "kept"
    MISSING = "missing"
    UNUSABLE = "unusable"
    DUE = "due"
    NAMES = "names changed"
    AUTHORITY = "new authority"
    FORCED = "forced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to happen to one certificate; `pair` is the one that exists, if it is usable."""

    why: Why
    pair: KeyPair | None = None

    @property
    def kept(self) -> KeyPair | None:
        """The certificate that stays, or None when one is to be issued."""
        return self.pair if self.why is Why.KEPT else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One step for the authority and one for each leaf, in the order given.

    `former` are authorities to be trusted beside the present one until they expire: whoever was
    not told of the new one yet must still be able to verify and be verified.
    """

    authority: Step
    leaves: tuple[Step, ...]
    former: tuple[bytes, ...]


def make_plan(state: State, leaves: Sequence[Leaf], *, now: datetime, force: bool = False) -> Plan:
    """Return what to issue now; with `force`, all leaves."""
    held = state.get(AUTHORITY_SECRET)
    authority = _authority(held, now=now)
    former = _former(held, authority, now=now)
    steps = tuple(
        _leaf(state.get(leaf.secret), leaf, authority=authority.kept, now=now) for leaf in leaves
    )
    if force:
        steps = tuple(Step(why=Why.FORCED, pair=step.pair) if step.kept else step for step in steps)
    return Plan(authority=authority, leaves=steps, former=former)


def is_due(facts: Facts, *, now: datetime) -> bool:
    """Tell whether a certificate is to be renewed: after 2/3 of its lifetime."""
    return now >= facts.not_before + (facts.not_after - facts.not_before) * 2 / 3


def _authority(held: Mapping[str, bytes] | None, *, now: datetime) -> Step:
    if held is None:
        return Step(why=Why.MISSING)
    found = _usable(held, now=now)
    if found is None or not found[1].is_authority:
        return Step(why=Why.UNUSABLE)
    pair, facts = found
    return Step(why=Why.DUE if is_due(facts, now=now) else Why.KEPT, pair=pair)


def _former(
    held: Mapping[str, bytes] | None, authority: Step, *, now: datetime
) -> tuple[bytes, ...]:
    if held is None or authority.pair is None:
        return ()
    present = authorities(authority.pair.certificate, now=now)
    known = (*present, *authorities(held.get(BUNDLE, b""), now=now))
    excluded = present if authority.kept else ()
    return tuple(pem for pem in dict.fromkeys(known) if pem not in excluded)


def _leaf(
    held: Mapping[str, bytes] | None, leaf: Leaf, *, authority: KeyPair | None, now: datetime
) -> Step:
    if held is None:
        return Step(why=Why.MISSING)
    found = _usable(held, now=now)
    if found is None or found[1].subject is None:
        return Step(why=Why.UNUSABLE)
    pair, facts = found
    if authority is None:
        return Step(why=Why.AUTHORITY, pair=pair)
    if not is_issued_by(pair.certificate, authority.certificate):
        return Step(why=Why.UNUSABLE)
    if facts.subject != leaf.subject:
        return Step(why=Why.NAMES, pair=pair)
    return Step(why=Why.DUE if is_due(facts, now=now) else Why.KEPT, pair=pair)


def _usable(held: Mapping[str, bytes], *, now: datetime) -> tuple[KeyPair, Facts] | None:
    pair = KeyPair(certificate=held.get(CERTIFICATE, b""), key=held.get(KEY, b""))
    try:
        facts = examine(pair)
    except CertificateError:
        return None
    return None if now < facts.not_before else (pair, facts)
