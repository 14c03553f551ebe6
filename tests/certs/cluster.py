"""The few objects of an API server that `certs` touches, with real compare-and-swap."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import jsonpatch

from kube.client import Client
from kube.connection import Connection
from kube.errors import api_error
from tests.fakes.api_server import Answer, Reply, Request, refusal

NAMESPACE = "gpudetour-system"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gpudetour"

Object = dict[str, Any]


class Objects:
    """Stored objects by path; `before_write` runs once, before the first write."""

    def __init__(self) -> None:
        self.stored: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.namespace_exists = True
        self.before_write: Callable[[], None] | None = None
        self._versions = itertools.count(1)

    def put(self, path: str, found: Object) -> Object:
        metadata = {**found.get("metadata", {}), "resourceVersion": str(next(self._versions))}
        self.stored[path] = {**found, "metadata": metadata}
        return self.stored[path]

    def add_configuration(self, *webhooks: str) -> None:
        entries = [
            {"name": name, "clientConfig": {"url": "https://x"}, "matchPolicy": "Exact"}
            for name in webhooks
        ]
        self.put(CONFIGURATION, {"metadata": {"name": "gpudetour"}, "webhooks": entries})

    def data(self, secret: str) -> dict[str, bytes]:
        encoded = self.stored[f"{SECRETS}/{secret}"]["data"]
        return {key: base64.b64decode(value) for key, value in encoded.items()}

    def set_data(self, secret: str, **data: bytes) -> None:
        encoded = {
            key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()
        }
        path = f"{SECRETS}/{secret}"
        self.put(path, {**self.stored.get(path, {"type": "Opaque"}), "data": encoded})

    def ca_bundles(self) -> list[bytes | None]:
        found = [w["clientConfig"].get("caBundle") for w in self.stored[CONFIGURATION]["webhooks"]]
        return [None if text is None else base64.b64decode(text) for text in found]

    def reply(self, request: Request) -> Reply:
        """Answer as the API server does for GET, POST, PUT and JSON patches."""
        if request.path == "/version":
            return Answer()
        if request.method == "GET":
            found = self.stored.get(request.path)
            return refusal(404, "NotFound") if found is None else Answer(body=found)
        if self.before_write is not None:
            hook, self.before_write = self.before_write, None
            hook()
        self.writes.append((request.method, request.path))
        return self._write(request)

    def _write(self, request: Request) -> Reply:
        if request.method == "POST":
            path = f"{request.path}/{request.body['metadata']['name']}"
            if not self.namespace_exists:
                return refusal(404, "NotFound")
            if path in self.stored:
                return refusal(409, "AlreadyExists")
            return Answer(status=201, body=self.put(path, request.body))
        found = self.stored[request.path]
        if request.method == "PATCH":
            wanted = jsonpatch.apply_patch(found, request.body)
            if wanted["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                return refusal(409, "Conflict")
            return Answer(body=self.put(request.path, wanted))
        if request.body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            return refusal(409, "Conflict")
        if request.body["type"] != found["type"]:
            return refusal(422, "Invalid")
        return Answer(body=self.put(request.path, request.body))


class Direct(Client):
    """Calls the objects without HTTP, for tests that make thousands of passes.

    `on_write` is called with each path before it is written, and may raise.
    """

    def __init__(self, objects: Objects, on_write: Callable[[str], None]) -> None:
        super().__init__(Connection(server="http://127.0.0.1:1", authorization=lambda: None))
        self._objects = objects
        self._on_write = on_write

    def get(self, path: str, **_: Any) -> Any:
        return self._ask("GET", path)

    def create(self, path: str, body: Any, **_: Any) -> Any:
        self._on_write(f"{path}/{body['metadata']['name']}")
        return self._ask("POST", path, body)

    def replace(self, path: str, body: Any) -> Any:
        self._on_write(path)
        return self._ask("PUT", path, body)

    def patch(self, path: str, body: Any, **_: Any) -> Any:
        self._on_write(path)
        return self._ask("PATCH", path, body)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = Request(method=method, path=path, params={}, headers={}, body=body, at=0.0)
        answer = self._objects.reply(request)
        assert isinstance(answer, Answer)
        if answer.status >= 300:
            raise api_error(answer.status, reason=answer.body["reason"], message="refused")
        return answer.body
