"""A cluster in which time passes as a test wants, and what its readers may still hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509

from certs.authority import is_issued_by
from certs.converge import Pass, converge
from certs.names import Leaf
from certs.rules import Rules
from certs.store import Store
from kube.errors import Conflict
from tests.certs.cluster import CONFIGURATION, SECRETS, Direct, Objects
from tests.certs.making import split

#: What everything is measured in: the time after which everybody has read what was written.
D = timedelta(seconds=60)
RULES = Rules(authority=40 * D, server=6 * D, client=12 * D, propagation=D)
#: The shortest lifetimes that are allowed.
TIGHT = Rules(authority=20 * D, server=6 * D, client=6 * D, propagation=D)

WEBHOOK = f"{SECRETS}/gpudetour-webhook-tls"
EXTENDER = f"{SECRETS}/gpudetour-extender-tls"
CLIENT = f"{SECRETS}/gpudetour-scheduler-client"


class Crash(Exception):
    """The process ended in the middle of a pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the settings of a process say."""

    names: tuple[Leaf, ...]
    lifetimes: Rules = RULES
    write_to: None = None

    def leaves(self) -> tuple[Leaf, ...]:
        return self.names

    def rules(self) -> Rules:
        return self.lifetimes


@dataclass(frozen=True, slots=True)
class Version:
    """What a place held, from one time until another."""

    content: dict[str, bytes]
    since: datetime


class Site:
    """Objects with their history. Every pass is the real one, on a client without a network."""

    def __init__(self, wanted: Wanted, start: datetime) -> None:
        self.now = start
        self.objects = Objects()
        self.objects.add_configuration("pods.gpudetour.io")
        self.authorities: set[bytes] = set()
        self.patient = True
        self._wanted = wanted
        self._history: dict[str, list[Version]] = {}

    def converge(
        self, *, force: bool = False, before: Callable[[int], None] = lambda _: None
    ) -> Pass:
        """Make one pass; `before` is called with the number of each write and may raise."""
        writes = 0

        def on_write(_: str) -> None:
            nonlocal writes
            writes += 1
            before(writes)
            self.record()

        store = Store(
            Direct(self.objects, on_write), namespace="gpudetour-system", configuration="gpudetour"
        )
        try:
            return converge(store, self._wanted, now=self.now, force=force)
        finally:
            self.record()

    def crash(self, after: int) -> None:
        """Begin a pass and end with the process, before write number `after`."""

        def end(number: int) -> None:
            if number >= after:
                raise Crash

        with contextlib.suppress(Crash):
            self.converge(before=end)

    def overtaken(self, at: int, by: Callable[[], None]) -> None:
        """Begin a pass, do `by` before write number `at`, and go on with what was read before."""

        def interrupt(number: int) -> None:
            if number == at:
                by()

        with contextlib.suppress(Conflict):
            self.converge(before=interrupt)

    def record(self) -> None:
        """Remember what has changed since the last call."""
        for path in self.objects.stored:
            content = self._content(path)
            versions = self._history.setdefault(path, [])
            if not versions or versions[-1].content != content:
                versions.append(Version(content, self.now))
        if f"{SECRETS}/gpudetour-ca" in self.objects.stored:
            self.authorities.add(self.objects.data("gpudetour-ca").get("tls.crt", b""))

    def held(self, path: str, *, lag: timedelta = D) -> Iterator[dict[str, bytes]]:
        """Return what a reader may hold that reads every change after `lag` at the latest."""
        versions = self._history.get(path, [])
        ends = [*(version.since for version in versions[1:]), None]
        for version, end in zip(versions, ends, strict=True):
            if end is None or end >= self.now - lag:
                yield version.content

    def _content(self, path: str) -> dict[str, bytes]:
        if path == CONFIGURATION:
            return {"ca.crt": self.objects.ca_bundles()[0] or b""}
        return self.objects.data(path.rpartition("/")[2])


def verifies(leaf: bytes, bundle: bytes, now: datetime) -> bool:
    """Tell whether somebody who trusts `bundle` accepts `leaf` now."""
    begin, end = _validity(leaf)
    if not begin <= now <= end:
        return False
    return any(
        _validity(pem)[0] <= now <= _validity(pem)[1] and _issued(leaf, pem)
        for pem in split(bundle)
    )


@lru_cache(maxsize=4096)
def _validity(pem: bytes) -> tuple[datetime, datetime]:
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


@lru_cache(maxsize=65536)
def _issued(leaf: bytes, authority: bytes) -> bool:
    return is_issued_by(leaf, authority)
