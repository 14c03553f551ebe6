"""Where certificates live in the cluster: Secrets, and the caBundle of the webhook configuration.

Writes are compare-and-swap: of two runs at the same time one meets `kube.errors.Conflict` and must
begin again from what the other stored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kube.client import JSON_PATCH, Client
from kube.errors import NotFound

_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class CaBundle(StrEnum):
    """What became of the webhook configuration."""

    FILLED = "filled"
    KEPT = "kept"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A Secret as it was read: the object, and its decoded data."""

    object: Mapping[str, Any]
    data: Mapping[str, bytes]


class Store:
    """Reads and writes our Secrets and the webhook configuration."""

    def __init__(self, client: Client, *, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._path = f"/api/v1/namespaces/{namespace}/secrets"

    def read(self, names: Iterable[str]) -> dict[str, Held]:
        """Return those of the named Secrets that exist."""
        held = {}
        for name in names:
            try:
                found = self._client.get(f"{self._path}/{name}")
            except NotFound:
                continue
            held[name] = Held(object=found, data=_decode(found.get("data") or {}))
        return held

    def write(self, name: str, data: Mapping[str, bytes], *, held: Held | None) -> None:
        """Create a Secret, or replace what was read; raises `Conflict` if it changed since."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        if held is not None:
            # The type of a Secret cannot change, so the object stays but for its data.
            self._client.replace(f"{self._path}/{name}", {**held.object, "data": encoded})
            return
        metadata = {
            "name": name,
            "namespace": self._namespace,
            "labels": {"app.kubernetes.io/part-of": "gpudetour"},
        }
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata,
            "data": encoded,
        }
        self._client.create(self._path, body)

    def trust(self, configuration: str, bundle: bytes) -> CaBundle:
        """Make the API server verify our webhooks against `bundle`."""
        path = f"{_CONFIGURATIONS}/{configuration}"
        try:
            found = self._client.get(path)
        except NotFound:
            return CaBundle.ABSENT
        patch = ca_bundle_patch(found, bundle)
        if not patch:
            return CaBundle.KEPT
        self._client.patch(path, patch, content_type=JSON_PATCH)
        return CaBundle.FILLED


def ca_bundle_patch(configuration: Mapping[str, Any], bundle: bytes) -> list[dict[str, Any]]:
    """Return the JSON patch that sets the caBundle of every webhook, empty if all have it.

    Nothing else is touched: managed clusters add selectors of their own to such objects.
    """
    wanted = base64.b64encode(bundle).decode()
    patch: list[dict[str, Any]] = []
    for index, webhook in enumerate(configuration.get("webhooks") or ()):
        if webhook["clientConfig"].get("caBundle") == wanted:
            continue
        path = f"/webhooks/{index}"
        patch.append({"op": "test", "path": f"{path}/name", "value": webhook["name"]})
        patch.append({"op": "add", "path": f"{path}/clientConfig/caBundle", "value": wanted})
    return patch


def _decode(data: Mapping[str, str]) -> dict[str, bytes]:
    decoded = {}
    for key, value in data.items():
        try:
            decoded[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            decoded[key] = b""
    return decoded
