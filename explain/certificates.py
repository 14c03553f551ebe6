"""Dates and trust of the certificates in our Secrets. Keys are in them too, and are not decoded."""

from __future__ import annotations

import msgspec

from explain.facts import Certificate
from kube.client import Client
from kube.errors import KubeError

_SECRETS = ("gpudetour-extender-tls", "gpudetour-scheduler-client")
_COLLECTION = "/api/v1/namespaces/gpudetour-system/secrets"


class _Data(msgspec.Struct):
    certificate: bytes = msgspec.field(default=b"", name="tls.crt")
    bundle: bytes = msgspec.field(default=b"", name="ca.crt")


class _Secret(msgspec.Struct):
    data: _Data = msgspec.field(default_factory=_Data)


def read_certificates(client: Client) -> tuple[Certificate, ...]:
    """Return what can be told of the two ends of the scheduler's calls.

    Raises `KubeError` where a Secret may not be read or does not exist.
    """
    # Imported here: cryptography is large, and most pods wait for other reasons.
    from certs.authority import CertificateError, authorities, expiry, is_issued_by

    found = []
    for name in _SECRETS:
        data = client.get(f"{_COLLECTION}/{name}", type=_Secret).data
        try:
            not_after = expiry(data.certificate)
            trusted = authorities(data.bundle, now=client.server_time())
            signed = any(is_issued_by(data.certificate, each) for each in trusted)
        except CertificateError as error:
            raise KubeError(f"Secret {name}: {error}") from error
        found.append(Certificate(secret=name, not_after=not_after, trusted=signed))
    return tuple(found)
