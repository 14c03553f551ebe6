"""What is found in the cluster, and which of it can be used. Values only, no IO.

Broken and foreign content counts as missing, so that every run ends in a working state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certs.authority import CertificateError, Facts, KeyPair, examine
from certs.names import CERTIFICATE, KEY

#: The data of a Secret.
Content = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The Secrets that exist, by name, and the caBundle of each of our webhooks.

    `bundles` is empty where there is no webhook configuration, and holds b"" for a webhook that
    has no caBundle.
    """

    secrets: Mapping[str, Content]
    bundles: tuple[bytes, ...] = ()


class Why(StrEnum):
    """Why a certificate is issued, or that it stays."""

    KEPT = "kept"
    #: It would be issued anew, but not everybody knows the authority that would sign it.
    WAITING = "waiting"
    MISSING = "missing"
    UNUSABLE = "unusable"
    EXPIRED = "expired"
    DUE = "due"
    NAMES = "names changed"
    FORCED = "forced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """A certificate with its own key that has begun to be valid; it may have expired."""

    pair: KeyPair
    facts: Facts


def usable(
    held: Content, *, now: datetime, certificate: str = CERTIFICATE, key: str = KEY
) -> Usable | None:
    """Return what a Secret holds under these keys, or None unless it is a pair."""
    pair = KeyPair(certificate=held.get(certificate, b""), key=held.get(key, b""))
    try:
        facts = examine(pair)
    except CertificateError:
        return None
    return None if now < facts.not_before else Usable(pair=pair, facts=facts)
