"""Certificates are what Go and OpenSSL accept, and say what they are for."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from certs.authority import (
    CertificateError,
    KeyPair,
    Subject,
    Usage,
    authorities,
    examine,
    is_issued_by,
    issue,
    new_authority,
    normal_host,
)
from tests.certs import making
from tests.certs.making import DAY

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SERVER = Subject(
    common_name="gpudetour-webhook",
    usage=Usage.SERVER,
    hosts=frozenset({"gpudetour-webhook.gpudetour-system.svc", "10.0.0.1", "::1"}),
)


@pytest.fixture
def ca() -> KeyPair:
    return new_authority(now=NOW, lifetime=365 * DAY)


def test_a_leaf_says_whom_it_names_and_how_long(ca: KeyPair) -> None:
    facts = examine(issue(ca, SERVER, now=NOW, lifetime=30 * DAY))

    assert (facts.not_before, facts.not_after) == (NOW - timedelta(hours=1), NOW + 30 * DAY)
    assert facts.subject == SERVER
    assert not facts.is_authority


def test_a_leaf_never_outlives_its_authority(ca: KeyPair) -> None:
    leaf = issue(ca, SERVER, now=NOW + 360 * DAY, lifetime=30 * DAY)

    assert examine(leaf).not_after == examine(ca).not_after


def test_every_certificate_has_its_own_key_and_serial(ca: KeyPair) -> None:
    pairs = [ca, *(issue(ca, SERVER, now=NOW, lifetime=DAY) for _ in range(3))]
    serials = {x509.load_pem_x509_certificate(p.certificate).serial_number for p in pairs}

    assert len(serials) == len({p.key for p in pairs}) == len(pairs)


def test_only_its_own_authority_issued_a_leaf(ca: KeyPair) -> None:
    leaf = issue(ca, SERVER, now=NOW, lifetime=DAY)
    other = new_authority(now=NOW, lifetime=DAY)

    assert is_issued_by(leaf.certificate, ca.certificate)
    assert not is_issued_by(leaf.certificate, other.certificate)
    assert not is_issued_by(b"", ca.certificate)


def test_a_bundle_gives_the_authorities_that_are_valid(ca: KeyPair) -> None:
    short = new_authority(now=NOW, lifetime=DAY)
    leaf = issue(ca, SERVER, now=NOW, lifetime=DAY)
    bundle = ca.certificate + leaf.certificate + short.certificate

    assert authorities(bundle, now=NOW) == (ca.certificate, short.certificate)
    assert authorities(bundle, now=NOW + 2 * DAY) == (ca.certificate,)
    assert authorities(b"nonsense", now=NOW) == ()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_is_an_error(ca: KeyPair, content: bytes) -> None:
    for pair in (
        KeyPair(certificate=content, key=ca.key),
        KeyPair(certificate=ca.certificate, key=content),
    ):
        with pytest.raises(CertificateError):
            examine(pair)


def test_a_key_of_another_certificate_is_an_error(ca: KeyPair) -> None:
    other = new_authority(now=NOW, lifetime=DAY)

    with pytest.raises(CertificateError, match="does not belong"):
        examine(KeyPair(certificate=ca.certificate, key=other.key))


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("Webhook.Example", "webhook.example"),
        ("*.example", "*.example"),
    ],
)
def test_hosts_are_compared_in_one_form(host: str, normal: str) -> None:
    assert normal_host(host) == normal


@pytest.mark.parametrize(
    "host", ["", "a b", "https://x", "x:443", "-x", "x-", "a..b", "ü", "a" * 64, "10.0.0.0/8"]
)
def test_what_is_no_host_is_an_error(host: str) -> None:
    with pytest.raises(CertificateError, match="neither a DNS name nor an IP address"):
        normal_host(host)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str) -> None:
    """Shake hands over a socket pair, and pass one byte so that both have verified."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(ours, server_side=True) as sock:
                sock.recv(1)
                sock.send(b"x")
        except OSError:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=name) as sock:
            sock.send(b"x")
            if not sock.recv(1):
                raise ConnectionError("refused")
    finally:
        theirs.close()
        thread.join()


def test_handshakes_succeed_in_both_roles_and_only_in_their_own(tmp_path: Path) -> None:
    ca = making.authority()
    pairs = {"server": making.server(ca), "client": making.client(ca)}
    contexts: dict[tuple[str, str], ssl.SSLContext] = {}
    for holder, pair in pairs.items():
        files = making.Mounted(tmp_path / holder)
        files.put(pair, trusted=ca.certificate)
        for role, protocol in (
            ("server", ssl.PROTOCOL_TLS_SERVER),
            ("client", ssl.PROTOCOL_TLS_CLIENT),
        ):
            context = ssl.SSLContext(protocol)
            context.load_cert_chain(files.cert_file, files.key_file)
            context.load_verify_locations(files.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            contexts[role, holder] = context

    handshake(contexts["server", "server"], contexts["client", "client"], name="localhost")
    handshake(contexts["server", "server"], contexts["client", "client"], name="127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts["server", "server"], contexts["client", "client"], name="elsewhere")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts["server", "client"], contexts["client", "client"], name="localhost")
    with pytest.raises(OSError):  # noqa: PT011 - an alert or a reset, as the scheduling has it
        handshake(contexts["server", "server"], contexts["client", "server"], name="localhost")
