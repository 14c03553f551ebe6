"""X.509: a certificate authority and the certificates that it issues. ECDSA P-256 throughout.

Knows no Secrets and no files; all certificates and keys are PEM bytes, all times are aware.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Clocks of nodes differ: a certificate is valid from a while before it was made.
BACKDATE = timedelta(hours=1)

_DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII
)


class CertificateError(ValueError):
    """Not a certificate, not its key, or not a name that a certificate can carry."""


class Usage(StrEnum):
    """What a certificate proves: who serves, or who calls."""

    SERVER = "server"
    CLIENT = "client"


_EXTENDED_KEY_USAGE = {
    Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom a leaf certificate names; `hosts` are DNS names and IP addresses, in any order."""

    common_name: str
    usage: Usage
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a certificate says of itself; `subject` is None where it is no leaf of our making."""

    not_before: datetime
    not_after: datetime
    is_authority: bool
    subject: Subject | None

    @property
    def made(self) -> datetime:
        """When it was made, for ours are backdated; of one that cannot be ours, when it begins."""
        made = self.not_before + BACKDATE
        return made if made < self.not_after else self.not_before


def new_authority(*, now: datetime, lifetime: timedelta) -> KeyPair:
    """Make a certificate authority that may issue leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own for each authority: two of them may be trusted at the same time.
    name = _name(f"gpudetour-ca-{serial:x}"[:32])
    builder = (
        _builder(name, key, serial=serial, now=now)
        .issuer_name(name)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return _sign(builder, key, signer=key)


def issue(authority: KeyPair, subject: Subject, *, now: datetime, lifetime: timedelta) -> KeyPair:
    """Issue a leaf certificate with a new key; it never outlives its authority."""
    issuer, signer = _certificate(authority.certificate), _key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(subject.common_name), key, serial=x509.random_serial_number(), now=now)
        .issuer_name(issuer.subject)
        .not_valid_after(min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_EXTENDED_KEY_USAGE[subject.usage]]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if subject.hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in sorted(subject.hosts)])
        builder = builder.add_extension(names, critical=False)
    return _sign(builder, key, signer=signer)


def examine(pair: KeyPair) -> Facts:
    """Return what a certificate says; raises `CertificateError` unless the key is its own."""
    certificate = _certificate(pair.certificate)
    if certificate.public_key() != _key(pair.key).public_key():
        raise CertificateError("the key does not belong to the certificate")
    return _facts(certificate)


def expiry(certificate: bytes) -> datetime:
    """Return when a certificate expires; raises `CertificateError`."""
    return _certificate(certificate).not_valid_after_utc


def is_issued_by(certificate: bytes, authority: bytes) -> bool:
    """Tell whether the signature of one certificate was made by another."""
    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def authorities(bundle: bytes, *, now: datetime) -> tuple[bytes, ...]:
    """Return the authorities of a PEM bundle that are valid now; an unreadable one has none."""
    try:
        found = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return ()
    return tuple(_pem(certificate) for certificate in found if _is_authority(certificate, now=now))


def normal_host(host: str) -> str:
    """Return a DNS name or IP address as `Subject.hosts` holds it; raises `CertificateError`."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        name = host.lower()
        if _DNS_NAME.fullmatch(name) is None:
            raise CertificateError(f"{host!r} is neither a DNS name nor an IP address") from None
        return name


def _is_authority(certificate: x509.Certificate, *, now: datetime) -> bool:
    try:
        facts = _facts(certificate)
    except CertificateError:
        return False
    return facts.is_authority and facts.not_before <= now < facts.not_after


def _facts(certificate: x509.Certificate) -> Facts:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise CertificateError(f"not a certificate of ours: {error}") from error
    return Facts(
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_authority=constraints.ca,
        subject=None if constraints.ca else _subject(certificate, extensions),
    )


def _subject(certificate: x509.Certificate, extensions: x509.Extensions) -> Subject | None:
    try:
        usages = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return None
    usage = next((u for u, oid in _EXTENDED_KEY_USAGE.items() if usages == [oid]), None)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if usage is None or len(names) != 1:
        return None
    return Subject(common_name=str(names[0].value), usage=usage, hosts=_hosts(extensions))


def _hosts(extensions: x509.Extensions) -> frozenset[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in names)


def _builder(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, *, serial: int, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    *,
    signer: ec.EllipticCurvePrivateKey,
) -> KeyPair:
    return KeyPair(
        certificate=_pem(builder.sign(signer, hashes.SHA256())),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(normal_host(host))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(f"not a certificate: {error}") from error


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError("not a private key that we can read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("not an ECDSA key")
    return key
