"""Until when a certificate is valid, as a metric. Reads certificates, trusts and makes none.

The processes that serve need no more of X.509 than this one date, so they do not load a library
for it.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, Gauge

from service.tls import peer_not_after

_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_END = "-----END CERTIFICATE-----"


class Expiry:
    """The metric that says until when each certificate is valid; one for each process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(
            "gpudetour_certificate_not_after_seconds",
            "When a certificate expires, in seconds since 1970",
            ["name"],
            registry=registry,
        )

    def tell(self, name: str, when: float) -> None:
        """Say when a certificate expires, in seconds since 1970."""
        self._gauge.labels(name).set(when)

    def follow(self, name: str, cert_file: str) -> None:
        """Read the first certificate of a PEM file whenever metrics are asked for.

        While it cannot be read, the time is not a number.
        """

        def read() -> float:
            try:
                return not_after(Path(cert_file).read_bytes()).timestamp()
            except (OSError, ValueError):
                return math.nan

        self._gauge.labels(name).set_function(read)

    def of_callers(self, app: WSGIApplication, name: str) -> WSGIApplication:
        """Return `app` that also tells when the client certificate of the last caller expires."""
        last: str | None = None

        def noting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            nonlocal last
            shown = peer_not_after(environ)
            if shown is not None and shown != last:
                last = shown
                self.tell(name, ssl.cert_time_to_seconds(shown))
            return app(environ, start_response)

        return noting


def not_after(pem: bytes) -> datetime:
    """Return when the first certificate of a PEM text expires; raises ValueError.

    RFC 5280 4.1: Certificate and TBSCertificate are SEQUENCEs; the latter begins with an optional
    version, then serial number, signature algorithm, issuer, and validity with its two times.
    """
    first = pem.decode("ascii").partition(_END)[0] + _END
    der = memoryview(ssl.PEM_cert_to_DER_cert(first[max(0, first.find("-----BEGIN")) :]))
    fields = _inside(_inside(der, _SEQUENCE), _SEQUENCE)
    tag, _, rest = _element(fields)
    if tag == _VERSION:
        _, _, rest = _element(rest)
    for _ in range(2):  # signature algorithm, issuer
        _, _, rest = _element(rest)
    _, _, ends = _element(_inside(rest, _SEQUENCE))
    tag, content, _ = _element(ends)
    return _time(tag, bytes(content).decode("ascii"))


def _inside(data: memoryview, expected: int) -> memoryview:
    tag, content, _ = _element(data)
    if tag != expected:
        raise ValueError(f"not a certificate: element {tag:#x} where {expected:#x} belongs")
    return content


def _element(data: memoryview) -> tuple[int, memoryview, memoryview]:
    """Return tag and content of the first DER element, and what follows it."""
    if len(data) < 2:
        raise ValueError("not a certificate: it is cut off")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise ValueError("not a certificate: it is cut off")
    return data[0], data[start : start + size], data[start + size :]


def _time(tag: int, text: str) -> datetime:
    if tag == _UTC_TIME:
        # RFC 5280 4.1.2.5.1: years 50 to 99 are of the last century.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"not a certificate: element {tag:#x} where a time belongs")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
