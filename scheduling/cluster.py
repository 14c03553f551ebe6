"""Reads from the API server what the configuration needs: certificates, addresses."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

import yaml
from cryptography import x509

from doctor.shapes import mapping, text
from kube.client import Client
from kube.errors import NotFound
from scheduling.configuration import Credentials, Object, SetupError
from scheduling.flavors import FILE

_SYSTEM = "/api/v1/namespaces/gpudetour-system"
_SECRET = "gpudetour-scheduler-client"  # noqa: S105 - the name of a Secret
_SERVICE = "gpudetour-extender"
_CONFIG_MAP = "gpudetour-scheduler"
_PORT = "https"


def read_credentials(client: Client) -> Credentials:
    """Return what kube-scheduler proves itself with; raises `SetupError` and `KubeError`."""
    found = _read(
        client,
        f"{_SYSTEM}/secrets/{_SECRET}",
        missing=f"Secret {_SECRET} is not there yet: the Deployment gpudetour-certs makes it within"
        " seconds of the install. kubectl -n gpudetour-system logs deployment/gpudetour-certs",
    )
    data = mapping(found.get("data"))
    return Credentials(
        ca=_entry(data, "ca.crt"), certificate=_entry(data, "tls.crt"), key=_entry(data, "tls.key")
    )


def read_address(client: Client) -> str:
    """Return where the extender is called, as `ADDRESS:PORT`; raises `SetupError`, `KubeError`."""
    found = _read(
        client,
        f"{_SYSTEM}/services/{_SERVICE}",
        missing=f"Service {_SERVICE} is not there: install gpudetour first. In the variant with a"
        " scheduler of its own there is none, and nothing to configure (--flavor second)",
    )
    spec = mapping(found.get("spec"))
    address = text(spec.get("clusterIP"))
    if address in ("", "None"):
        raise SetupError(
            f"Service {_SERVICE} has no address of its own, and kube-scheduler asks no cluster DNS;"
            " give it a clusterIP, or name an address with --address"
        )
    ports = [mapping(port) for port in spec.get("ports") or ()]
    chosen = next((port for port in ports if port.get("name") == _PORT), ports[0] if ports else {})
    port = chosen.get("port", 443)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def read_second(client: Client) -> Object:
    """Return the configuration of the scheduler beside the extender; raises as above."""
    found = _read(
        client,
        f"{_SYSTEM}/configmaps/{_CONFIG_MAP}",
        missing=f"ConfigMap {_CONFIG_MAP} is not there: apply manifests/second-scheduler.yaml, that"
        " brings the scheduler with its configuration",
    )
    document = text(mapping(found.get("data")).get(FILE))
    try:
        configuration = yaml.safe_load(document)
    except yaml.YAMLError as error:
        raise SetupError(f"{FILE} in ConfigMap {_CONFIG_MAP} is no YAML: {error}") from error
    if not isinstance(configuration, dict):
        raise SetupError(f"ConfigMap {_CONFIG_MAP} holds no {FILE}; apply the manifest again")
    return configuration


def expiry(credentials: Credentials) -> datetime:
    """Return when the client certificate expires; raises `SetupError` where it is none."""
    try:
        certificate = x509.load_pem_x509_certificate(credentials.certificate)
    except ValueError as error:
        raise SetupError(f"tls.crt in Secret {_SECRET} is no certificate: {error}") from error
    return certificate.not_valid_after_utc


def _read(client: Client, path: str, *, missing: str) -> dict[str, Any]:
    try:
        return dict(mapping(client.get(path)))
    except NotFound as error:
        raise SetupError(missing) from error


def _entry(data: Any, name: str) -> bytes:
    try:
        decoded = base64.b64decode(text(data.get(name)), validate=True)
    except binascii.Error:
        decoded = b""
    if not decoded:
        raise SetupError(
            f"Secret {_SECRET} has no {name}; the Deployment gpudetour-certs (or cert-manager)"
            " fills it: see its log"
        )
    return decoded
