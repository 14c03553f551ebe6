"""Which authority is trusted, and which one signs: a pure function of what is found and the time.

Everybody must trust an authority before anything that it signed is served. So the life of one is:

1. made, when its predecessor has lived 2/3 of its life, and put into every bundle;
2. known to all, `Rules.propagation` after it was seen in every bundle;
3. signing whatever is due, when the predecessor has lived 5/6 of its life: kube-scheduler reads
   its bundle only when it starts, and is to be restarted once in between. The predecessor's key is
   deleted;
4. succeeded by another one, but trusted until it expires. Nothing outlives what signed it, so
   nothing that is in use anywhere loses its trust.

The state is in the Secret of the authority, so that any process can go on at any point.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from certs.authority import Facts, KeyPair, authorities, is_issued_by
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
from certs.rules import Rules, is_due, part_of_life
from certs.state import Content, State, Usable, Why, usable


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The newest authority, what is trusted beside it, and which one signs.

    `newest` is None where one is to be made. `retiring` signs as long as it is there. `former` are
    the certificates to be trusted beside the newest, the retiring one among them. `ready` tells
    that everybody trusts the newest.
    """

    why: Why
    newest: KeyPair | None
    retiring: KeyPair | None
    former: tuple[bytes, ...]
    trusted_since: datetime | None
    ready: bool

    @property
    def trusted(self) -> tuple[bytes, ...]:
        """All certificates to be trusted that exist by now."""
        return self.former if self.newest is None else (self.newest.certificate, *self.former)

    def everybody_trusts(self, signer: KeyPair | None) -> bool:
        """Tell whether what `signer` signs can be served without a wait."""
        return self.ready or (signer is not None and signer == self.retiring)


def succession(
    state: State, leaves: tuple[Leaf, ...], *, now: datetime, rules: Rules
) -> Succession:
    """Return where the succession of authorities stands and which step is to be made now."""
    held = state.secrets.get(AUTHORITY_SECRET, {})
    newest, retiring = _valid(held, now=now), _retiring(held, now=now)
    known = _known(held, state, leaves, signers=(newest, retiring), now=now)
    if newest is None:
        why = Why.UNUSABLE if AUTHORITY_SECRET in state.secrets else Why.MISSING
        if (old := usable(held, now=now)) is not None and old.facts.is_authority:
            why = Why.EXPIRED
        return _begin(why, predecessor=retiring, known=known)
    since = _trusted_since(held, state, leaves, newest=newest, now=now, rules=rules)
    ready = since is not None and now >= _takes_over(since, newest, retiring, rules)
    if ready and retiring is None and is_due(newest.facts, now=now):
        return _begin(Why.DUE, predecessor=newest, known=known)
    return Succession(
        why=Why.KEPT,
        newest=newest.pair,
        retiring=None if ready or retiring is None else retiring.pair,
        former=_without(known, newest.pair.certificate),
        trusted_since=since,
        ready=ready,
    )


def _begin(why: Why, *, predecessor: Usable | None, known: tuple[bytes, ...]) -> Succession:
    return Succession(
        why=why,
        newest=None,
        retiring=None if predecessor is None else predecessor.pair,
        former=known,
        trusted_since=None,
        ready=False,
    )


def _valid(
    held: Content, *, now: datetime, certificate: str = CERTIFICATE, key: str = KEY
) -> Usable | None:
    found = usable(held, now=now, certificate=certificate, key=key)
    fit = found is not None and found.facts.is_authority and now < found.facts.not_after
    return found if fit else None


def _retiring(held: Content, *, now: datetime) -> Usable | None:
    return _valid(held, now=now, certificate=RETIRING_CERTIFICATE, key=RETIRING_KEY)


def _known(
    held: Content,
    state: State,
    leaves: tuple[Leaf, ...],
    *,
    signers: tuple[Usable | None, ...],
    now: datetime,
) -> tuple[bytes, ...]:
    """Return what was trusted until now.

    The bundle beside the authority says so if that one is in it. Where the Secret was lost or
    damaged, it is what our leaves that are in service came with.
    """
    own = [signer.pair.certificate for signer in signers if signer is not None]
    bundle = authorities(held.get(BUNDLE, b""), now=now)
    if any(certificate in bundle for certificate in own):
        return tuple(dict.fromkeys((*own, *bundle)))
    adopted = [pem for leaf in leaves for pem in _came_with(state.secrets.get(leaf.secret), now)]
    return tuple(dict.fromkeys((*own, *adopted)))


def _came_with(held: Content | None, now: datetime) -> tuple[bytes, ...]:
    found = None if held is None else usable(held, now=now)
    if held is None or found is None or now >= found.facts.not_after:
        return ()
    bundle = authorities(held.get(BUNDLE, b""), now=now)
    signed = any(is_issued_by(found.pair.certificate, authority) for authority in bundle)
    return bundle if signed else ()


def _trusted_since(
    held: Content,
    state: State,
    leaves: tuple[Leaf, ...],
    *,
    newest: Usable,
    now: datetime,
    rules: Rules,
) -> datetime | None:
    secrets = [state.secrets.get(leaf.secret, {}).get(BUNDLE, b"") for leaf in leaves]
    if not all(newest.pair.certificate in place for place in (*state.bundles, *secrets)):
        return None
    told = _time(held.get(TRUSTED_SINCE, b""))
    # A time to come was written by a clock that was wrong.
    return told if told is not None and told <= now + rules.propagation else now


def _time(text: bytes) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.decode())
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _takes_over(since: datetime, newest: Usable, retiring: Usable | None, rules: Rules) -> datetime:
    known = since + rules.propagation
    return known if retiring is None else max(known, _half_way(newest.facts, retiring.facts))


def _half_way(newest: Facts, retiring: Facts) -> datetime:
    """Return the middle of the time in which both can sign, before the newest itself is due."""
    return min(part_of_life(retiring, 5 / 6), part_of_life(newest, 1 / 3))


def _without(known: tuple[bytes, ...], certificate: bytes) -> tuple[bytes, ...]:
    return tuple(pem for pem in known if pem != certificate)
