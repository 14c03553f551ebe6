"""The cluster's own certificate authority and keys: for a throw-away cluster on the loopback
address only.

The product's certificates are the business of its own package.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster.files import write_atomically

_LIFETIME = dt.timedelta(days=30)
_CLOCK_SKEW = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its key as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a folder; keys are readable by their owner only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"

    def create(self) -> None:
        """Make the authority's own key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("localcluster-ca", ())
        builder = _builder(subject=name, issuer=name, key=key.public_key())
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        self._write(self.certificate, self._key, key, builder.sign(key, hashes.SHA256()))

    def issue(
        self,
        file_name: str,
        *,
        common_name: str,
        organizations: Sequence[str] = (),
        hosts: Sequence[str] = (),
    ) -> KeyPair:
        """A key and a certificate for client use, and for serving `hosts` (names and addresses)
        where given.

        Kubernetes takes the common name as user and the organizations as groups.
        """
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signer = serialization.load_pem_private_key(self._key.read_bytes(), password=None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self._key} holds no elliptic curve key")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name, organizations)
        builder = _builder(subject=subject, issuer=authority.subject, key=key.public_key())
        for extension, critical in _leaf_extensions(signer.public_key(), hosts):
            builder = builder.add_extension(extension, critical=critical)
        pair = KeyPair(
            certificate=self._folder / f"{file_name}.crt", key=self._folder / f"{file_name}.key"
        )
        self._write(pair.certificate, pair.key, key, builder.sign(signer, hashes.SHA256()))
        return pair

    def create_signing_key(self, file_name: str) -> KeyPair:
        """A key for signing tokens, and its public half instead of a certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        pair = KeyPair(
            certificate=self._folder / f"{file_name}.pub", key=self._folder / f"{file_name}.key"
        )
        write_atomically(pair.key, _private_pem(key), mode=0o600)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_atomically(pair.certificate, public)
        return pair

    def _write(
        self,
        certificate_file: Path,
        key_file: Path,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
    ) -> None:
        write_atomically(key_file, _private_pem(key), mode=0o600)
        write_atomically(
            certificate_file, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644
        )


def _builder(
    *, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _leaf_extensions(
    issuer: ec.EllipticCurvePublicKey, hosts: Sequence[str]
) -> list[tuple[x509.ExtensionType, bool]]:
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(authority=False), True),
        (x509.ExtendedKeyUsage(uses), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), False),
    ]
    if hosts:
        extensions.append((x509.SubjectAlternativeName([_general_name(h) for h in hosts]), False))
    return extensions


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
