"""Where certificates live in the cluster: Secrets, and the caBundle of the webhook configuration.

Writes are compare-and-swap: of two runs at the same time one meets `kube.errors.Conflict` and must
begin again from what the other stored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from certs.names import AUTHORITY_SECRET, Leaf
from certs.state import State
from kube.client import JSON_PATCH, Client
from kube.errors import NotFound

_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class CaBundle(StrEnum):
    """What became of the webhook configuration."""

    FILLED = "filled"
    KEPT = "kept"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was read at one time: the objects as they were, and what a plan needs of them."""

    secrets: Mapping[str, Mapping[str, Any]]
    configuration: Mapping[str, Any] | None

    @property
    def state(self) -> State:
        """The decoded contents."""
        return State(
            secrets={
                name: _decode(found.get("data") or {}) for name, found in self.secrets.items()
            },
            bundles=tuple(_bundles(self.configuration or {})),
        )


class Store:
    """Reads and writes our Secrets and the webhook configuration."""

    def __init__(self, client: Client, *, namespace: str, configuration: str) -> None:
        self._client = client
        self._namespace = namespace
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._configuration = f"{_CONFIGURATIONS}/{configuration}"

    def observe(self, leaves: Iterable[Leaf]) -> Observed:
        """Read everything; the authority last.

        It is written first. So whoever knows an outdated authority has outdated versions of all
        else too, and cannot write that.
        """
        configuration = self._find(self._configuration)
        names = [*(leaf.secret for leaf in leaves), AUTHORITY_SECRET]
        found = {name: self._find(f"{self._secrets}/{name}") for name in names}
        secrets = {name: secret for name, secret in found.items() if secret is not None}
        return Observed(secrets=secrets, configuration=configuration)

    def _find(self, path: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._client.get(path)
        except NotFound:
            return None
        return found

    def write(self, name: str, data: Mapping[str, bytes], *, seen: Observed) -> bool:
        """Create a Secret, or replace the one that was seen; tells whether it was different.

        Raises `Conflict` if it changed since.
        """
        if seen.state.secrets.get(name) == data:
            return False
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        if (held := seen.secrets.get(name)) is not None:
            # The type of a Secret cannot change, so the object stays but for its data.
            self._client.replace(f"{self._secrets}/{name}", {**held, "data": encoded})
            return True
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
        self._client.create(self._secrets, body)
        return True

    def trust(self, bundle: bytes, *, seen: Observed) -> CaBundle:
        """Make the API server verify our webhooks against `bundle`.

        Raises `Conflict` if the configuration changed since it was seen.
        """
        if seen.configuration is None:
            return CaBundle.ABSENT
        patch = ca_bundle_patch(seen.configuration, bundle)
        if not patch:
            return CaBundle.KEPT
        self._client.patch(self._configuration, patch, content_type=JSON_PATCH)
        return CaBundle.FILLED


def ca_bundle_patch(configuration: Mapping[str, Any], bundle: bytes) -> list[dict[str, Any]]:
    """Return the JSON patch that sets the caBundle of every webhook, empty if all have it.

    Nothing else is touched: managed clusters add selectors of their own to such objects. The
    resourceVersion makes it a compare-and-swap.
    """
    patch = [
        {
            "op": "add",
            "path": f"/webhooks/{index}/clientConfig/caBundle",
            "value": base64.b64encode(bundle).decode(),
        }
        for index, held in enumerate(_bundles(configuration))
        if held != bundle
    ]
    version = configuration["metadata"]["resourceVersion"]
    seen = {"op": "replace", "path": "/metadata/resourceVersion", "value": version}
    return [seen, *patch] if patch else []


def _bundles(configuration: Mapping[str, Any]) -> Iterator[bytes]:
    for webhook in configuration.get("webhooks") or ():
        yield _decode({"": webhook["clientConfig"].get("caBundle") or ""})[""]


def _decode(data: Mapping[str, str]) -> dict[str, bytes]:
    decoded = {}
    for key, value in data.items():
        try:
            decoded[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            decoded[key] = b""
    return decoded
