"""The variant with cert-manager issues what our processes mount, and they serve from it."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority import KeyPair, Usage
from certs.names import AUTHORITY_SECRET, NAMESPACE, WEBHOOK_CONFIGURATION, leaves
from localcluster import shipped
from localcluster.shipped import MANIFESTS
from localcluster.waiting import until
from service.certificates import not_after
from tests.certs.making import DAY, Mounted
from tests.fakes.api_server import FakeApiServer
from tests.webhook.reviews import pod, review
from tests.webhook.test_webhook_process import listing, side, webhook

Object = dict[str, Any]
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def rendered() -> list[Object]:
    documents = yaml.safe_load_all((MANIFESTS / "cert-manager.yaml").read_text())
    return [item for item in documents if item is not None]


def of_kind(rendered: list[Object], kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in rendered if item["kind"] == kind}


def mounted_secrets(rendered: list[Object]) -> set[str]:
    return {
        volume["secret"]["secretName"]
        for kind in ("Deployment", "DaemonSet")
        for item in of_kind(rendered, kind).values()
        for volume in item["spec"]["template"]["spec"].get("volumes", ())
        if "secret" in volume
    }


def hours(text: str) -> int:
    assert text.endswith("h")
    return int(text[:-1])


def test_nothing_of_ours_issues_certificates(rendered: list[Object]) -> None:
    def named(items: list[Object]) -> set[tuple[str, str]]:
        return {(item["kind"], item["metadata"]["name"]) for item in items}

    base, ours = named(list(shipped.objects())), named(rendered)

    assert {name for _, name in base - ours} == {"gpudetour-certs"}
    assert {kind for kind, _ in ours - base} == {"Issuer", "Certificate"}
    assert "gpudetour-certs" not in json.dumps(
        [item["spec"] for item in rendered if "spec" in item]
    )


def test_certificates_name_what_ours_name(rendered: list[Object]) -> None:
    found = of_kind(rendered, "Certificate")
    usages = {Usage.SERVER: "server auth", Usage.CLIENT: "client auth"}
    by_secret = {item["spec"]["secretName"]: item["spec"] for item in found.values()}
    wanted = leaves(NAMESPACE)

    assert by_secret.keys() == {AUTHORITY_SECRET, *(leaf.secret for leaf in wanted)}
    for leaf in wanted:
        spec = by_secret[leaf.secret]
        assert spec["commonName"] == leaf.subject.common_name
        assert set(spec.get("dnsNames", ())) == leaf.subject.hosts
        assert spec["usages"] == ["digital signature", usages[leaf.subject.usage]]
        assert not spec.get("isCA", False)
        assert spec["issuerRef"]["name"] == "gpudetour"
        assert spec["privateKey"]["rotationPolicy"] == "Always"
    for item in found.values():
        assert item["metadata"]["namespace"] == NAMESPACE
        spec = item["spec"]
        assert hours(spec["renewBefore"]) == hours(spec["duration"]) // 3
        assert (spec["privateKey"]["algorithm"], spec["privateKey"]["size"]) == ("ECDSA", 256)


def test_the_authority_keeps_its_key_and_nobody_mounts_it(rendered: list[Object]) -> None:
    issuers = of_kind(rendered, "Issuer")
    (authority,) = (
        i["spec"] for i in of_kind(rendered, "Certificate").values() if "isCA" in i["spec"]
    )

    assert authority["secretName"] == AUTHORITY_SECRET
    assert authority["privateKey"]["rotationPolicy"] == "Never"
    assert issuers[authority["issuerRef"]["name"]]["spec"] == {"selfSigned": {}}
    assert issuers["gpudetour"]["spec"]["ca"]["secretName"] == AUTHORITY_SECRET
    secrets = mounted_secrets(rendered)
    assert secrets == {"gpudetour-webhook-tls", "gpudetour-extender-tls"}
    for kind in ("Role", "ClusterRole"):
        for item in of_kind(rendered, kind).values():
            assert not [rule for rule in item["rules"] if "secrets" in rule["resources"]], item


def test_the_ca_bundle_comes_from_the_certificate_that_the_webhook_serves(
    rendered: list[Object],
) -> None:
    configuration = of_kind(rendered, "MutatingWebhookConfiguration")[WEBHOOK_CONFIGURATION]
    source = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    namespace, _, name = source.partition("/")
    deployment = of_kind(rendered, "Deployment")["gpudetour-webhook"]

    assert namespace == NAMESPACE
    certificate = of_kind(rendered, "Certificate")[name]
    assert certificate["spec"]["secretName"] in mounted_secrets([deployment])


class CertManager:
    """Makes what cert-manager makes, by its documentation: keys in SEC 1, nothing backdated, an
    authority without a limit to its path that is renewed with its old key.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self.renewed()

    def renewed(self) -> bytes:
        """Return the authority's certificate, made anew."""
        name = _name("gpudetour-ca")
        builder = _builder(name, name, self._key, lifetime=1825 * DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        builder = builder.add_extension(_usage("cert sign", "crl sign"), critical=True)
        return _pem(builder.sign(self._key, hashes.SHA256()))

    def issue(self, spec: Object) -> KeyPair:
        """Return what a Certificate resource asks for."""
        key = ec.generate_private_key(ec.SECP256R1())
        oid = {
            "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
            "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
        }[spec["usages"][-1]]
        lifetime = timedelta(hours=hours(spec["duration"]))
        builder = _builder(_name(spec["commonName"]), _name("gpudetour-ca"), key, lifetime=lifetime)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
            critical=False,
        ).add_extension(x509.ExtendedKeyUsage([oid]), critical=False)
        builder = builder.add_extension(_usage(*spec["usages"]), critical=True)
        if names := spec.get("dnsNames"):
            san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(san, critical=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        return KeyPair(certificate=_pem(builder.sign(self._key, hashes.SHA256())), key=pem)


def _usage(*usages: str) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital signature" in usages,
        key_cert_sign="cert sign" in usages,
        crl_sign="crl sign" in usages,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def test_the_webhook_serves_from_such_a_secret_also_across_a_renewal_of_the_authority(
    rendered: list[Object], tmp_path: Path
) -> None:
    spec = of_kind(rendered, "Certificate")["gpudetour-webhook"]["spec"]
    manager = CertManager()
    before, after = manager.ca, manager.renewed()
    assert before != after
    files = Mounted(tmp_path / "tls")
    files.put(manager.issue(spec), trusted=before)
    body = json.dumps(review(pod())).encode()
    with FakeApiServer(listing) as api, webhook(files, api.url) as process:
        until(lambda: side(process, "/readyz")[0] == 200, timeout=60, what="the webhook ready")
        for trusted in (before, after):
            assert mutates(process.port(), trusted, body)
        shown = not_after(Path(files.cert_file).read_bytes()).timestamp()
        files.put(manager.issue(spec), trusted=after)
        for trusted in (before, after):
            assert mutates(process.port(), trusted, body)
        metrics = side(process, "/metrics")[1]

    line = next(x for x in metrics.splitlines() if x.startswith("gpudetour_certificate_not_after"))
    assert float(line.split()[-1]) == shown


def mutates(port: int, bundle: bytes, body: bytes) -> bool:
    """Call as the API server does, by the Service's name, on a connection of its own."""
    context = ssl.create_default_context(cadata=bundle.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    service = "gpudetour-webhook.gpudetour-system.svc"
    with urllib3.HTTPSConnectionPool(
        "127.0.0.1", port, ssl_context=context, server_hostname=service, assert_hostname=service
    ) as pool:
        answer = pool.request(
            "POST", "/mutate", body=body, headers={"Content-Type": "application/json"}
        )
    return "patch" in answer.json()["response"]
