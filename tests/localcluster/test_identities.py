"""Certificates and kubeconfigs are what Kubernetes expects."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from localcluster.kubeconfig import write_kubeconfig
from localcluster.pki import Authority, KeyPair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "pki")
    authority.create()
    return authority


def test_user_and_groups_are_in_the_subject(authority: Authority) -> None:
    pair = authority.issue("jane", common_name="jane", organizations=["dev", "ops"])

    subject = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["jane"]
    groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [a.value for a in groups] == ["dev", "ops"]


def test_keys_are_readable_by_their_owner_only(authority: Authority, tmp_path: Path) -> None:
    authority.issue("jane", common_name="jane")
    authority.create_signing_key("tokens")

    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "pki").glob("*.key")}
    assert modes == {"ca.key": 0o600, "jane.key": 0o600, "tokens.key": 0o600}


def test_a_server_and_a_client_trust_each_other(authority: Authority) -> None:
    server = authority.issue("server", common_name="server", hosts=["127.0.0.1", "localhost"])
    client = authority.issue("client", common_name="client", organizations=["system:masters"])

    assert handshake(authority, server, client, "127.0.0.1") == "client"
    assert handshake(authority, server, client, "localhost") == "client"


def test_a_server_is_not_trusted_under_another_name(authority: Authority) -> None:
    server = authority.issue("server", common_name="server", hosts=["127.0.0.1"])
    client = authority.issue("client", common_name="client")

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, server, client, "localhost")


def test_a_client_certificate_cannot_serve(authority: Authority) -> None:
    client = authority.issue("client", common_name="localhost")

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, client, client, "localhost")


def test_a_kubeconfig_holds_everything_and_is_private(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("jane", common_name="jane")
    target = tmp_path / "jane.kubeconfig"

    write_kubeconfig(
        target,
        server="https://127.0.0.1:6443",
        ca_file=authority.certificate,
        credentials=pair,
    )

    assert target.stat().st_mode & 0o777 == 0o600
    content = json.loads(target.read_text())
    (context,) = content["contexts"]
    assert content["current-context"] == context["name"]
    (cluster,) = content["clusters"]
    (user,) = content["users"]
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"]}
    assert cluster["cluster"]["server"] == "https://127.0.0.1:6443"
    embedded = {
        "certificate-authority-data": authority.certificate,
        "client-certificate-data": pair.certificate,
        "client-key-data": pair.key,
    }
    for name, file in embedded.items():
        value = {**cluster["cluster"], **user["user"]}[name]
        assert base64.b64decode(value) == file.read_bytes()


def test_a_kubeconfig_may_hold_a_token_instead(authority: Authority, tmp_path: Path) -> None:
    target = tmp_path / "robot.kubeconfig"

    write_kubeconfig(
        target, server="https://127.0.0.1:1", ca_file=authority.certificate, credentials="abc"
    )

    (user,) = json.loads(target.read_text())["users"]
    assert user["user"] == {"token": "abc"}


def handshake(authority: Authority, server: KeyPair, client: KeyPair, name: str) -> str:
    """The common name that the server sees after a mutual TLS handshake."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server.certificate, server.key)
    serving.load_verify_locations(authority.certificate)
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=str(authority.certificate))
    asking.load_cert_chain(client.certificate, client.key)
    seen: list[str] = []
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with serving.wrap_socket(theirs, server_side=True) as connection:
                certificate = x509.load_der_x509_certificate(
                    connection.getpeercert(binary_form=True) or b""
                )
                names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
                seen.extend(str(name.value) for name in names)
                connection.sendall(b".")
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, asking.wrap_socket(ours, server_hostname=name) as connection:
            connection.recv(1)
    finally:
        thread.join()
    return seen[0]
